"""Check `target`: clouds that policy allows can be reached, target folders written. Sends no credential."""

import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from agent.config import UploadsConfig
from agent.targets.http.settings import HttpSettings
from appliance.doctor import net
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped, warned
from appliance.doctor.checks.proxy import endpoints_of, proxy_of
from appliance.doctor.net import Head, Seen, WayBlocked
from appliance.doctor.threads import in_thread
from appliance.doctor.together import together

SKEW_S = 300.0
"""Azure refuses signatures that are more than 15 min off; long before that somebody should look."""


async def run(context: Context) -> AsyncIterator[Finding]:
    """Look at each folder and each endpoint with a name of its own."""
    config = context.config
    urls = endpoints_of(context)
    for name, folder in config.targets.local.items():
        yield await in_thread(partial(_folder, name, Path(folder)))
    for finding in await together(_endpoint(context, url) for url in urls):
        yield finding
    if not urls and not config.targets.local:
        yield skipped(
            "target", "targets", "policy names no endpoint without wildcards; give --target URL"
        )


def _folder(name: str, folder: Path) -> Finding:
    id_, title = f"target.{name}", f"target folder {folder}"
    if not folder.is_dir():
        return failed(
            id_, title, "there is no such folder", fix=f"mkdir -p {folder}, or change targets.local"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return failed(id_, title, "this user may not write there", fix=f"chown imageport {folder}")
    return passed(id_, title, "can be written")


async def _endpoint(context: Context, url: str) -> Finding:
    uploads, where = context.config.uploads, net.place(url)
    id_, title = f"target.{where.host}", f"target {where}"
    by = f" through the proxy {uploads.proxy}" if uploads.proxy else ", no proxy"
    try:
        seen, head = await _asked(uploads, url)
    except WayBlocked as err:
        proxy = proxy_of(uploads.proxy, uploads.proxy_credentials_file)
        issuer = await net.issuer_seen(where, proxy) if err.step == "trust" else ""
        shown = f"; it was issued by {issuer}" if issuer else ""
        told = f"{err}{shown}" if proxy else f"{err}{shown}{by}"
        return failed(id_, title, told, fix=err.advice, step=err.step, url=url)
    facts = {"url": url, "peer": seen.peer, "tls_issuer": seen.tls_issuer, "status": head.status}
    ahead = context.wall() - head.date if head.date is not None else 0.0
    issued = f", certificate issued by {seen.tls_issuer}" if seen.tls_issuer else ", plain HTTP"
    detail = f"answers at {seen.peer}{by}{issued}"
    if abs(ahead) > SKEW_S:
        detail += f"; its clock differs from ours by {ahead:.0f} s"
        return warned(
            id_, title, detail, fix="timedatectl set-ntp true", ahead_s=round(ahead), **facts
        )
    return passed(id_, title, detail, ahead_s=round(ahead, 1), **facts)


async def _asked(uploads: UploadsConfig, url: str) -> tuple[Seen, Head]:
    """Go the way of uploads and ask for nothing but a head; any status proves that the service answers."""
    where = net.place(url)
    proxy = proxy_of(uploads.proxy, uploads.proxy_credentials_file)
    async with net.way(where, proxy) as (reader, writer):
        if where.tls:
            await net.start_tls(writer, where, HttpSettings(ca_file=uploads.ca_file).tls())
        return net.seen(writer), await net.ask_head(reader, writer, where)


CHECK = Check(
    "target", "cloud endpoints can be reached, target folders written", run, needs=("config",)
)
