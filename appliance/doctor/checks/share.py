"""Check `share`: local folders can be read; an SMB share agrees to what the site asks and does what jobs need."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.config import AgentConfig
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from agent.stages.plugins import smb_policy
from appliance.doctor.base import Check, Context, Finding, Status, failed, passed, skipped
from appliance.doctor.smbprobe import Probe, nothing_after
from appliance.doctor.threads import in_thread

CONNECT_S = 5.0
ANSWER_S = 8.0


async def run(context: Context) -> AsyncIterator[Finding]:
    """Look at each folder of the configuration and at the SMB share of the command line."""
    config, options = context.config, context.options
    for name, folder in config.shares.local.items():
        yield await in_thread(partial(_folder, name, Path(folder)))
    if options.share is not None and options.credential is not None:
        policy = _policy(options.share.server, config)
        async for finding in _smb(options.share, options.credential, policy):
            yield finding
    elif not config.shares.local:
        detail = "none is configured; give --share smb://server/share --credential-file F"
        yield skipped("share", "shares", detail)


def _folder(name: str, folder: Path) -> Finding:
    id_, title = f"share.{name}", f"folder {folder}"
    try:
        count = sum(1 for _ in folder.iterdir())
    except OSError as err:
        fix = f"Mount or make {folder}, and let the agent's user read it; or change shares.local."
        return failed(id_, title, f"cannot be read: {err.strerror}", fix=fix, uid=os.geteuid())
    return passed(id_, title, f"can be read, {count} entries", entries=count)


async def _smb(
    ref: SmbShareRef, credential: SmbCredential, policy: SmbPolicy
) -> AsyncIterator[Finding]:
    share = SmbShare(ref, credential, policy=policy)
    try:
        for step in Probe(ref, share, policy).steps():
            findings = await in_thread(step)
            for finding in findings:
                yield finding
            if findings[-1].status is Status.FAIL:
                for finding in nothing_after(findings[-1]):
                    yield finding
                return
        await in_thread(share.close)
    finally:
        share.abort()  # wakes the thread if this was cancelled; else the share is closed already


def _policy(server: str, config: AgentConfig) -> SmbPolicy:
    """Return what jobs ask of this server, with the patience of somebody at a terminal."""
    return replace(
        smb_policy(server, config),
        connect_timeout=CONNECT_S,
        answer_timeout=ANSWER_S,
        reconnect_for=0.0,
    )


CHECK = Check(
    "share",
    "local folders can be read; one SMB share is tried in every way that jobs use it",
    run,
    needs=("config",),
)
