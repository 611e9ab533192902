"""Check `share`: local folders can be read; an SMB share agrees to what the site asks. Opens no file."""

import os
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from agent.config import AgentConfig
from agent.errors import AgentError
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from agent.stages.plugins import smb_policy
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped
from appliance.doctor.threads import in_thread
from imaging.units import MiB

CONNECT_S = 5.0
ANSWER_S = 8.0


async def run(context: Context) -> AsyncIterator[Finding]:
    """Look at each folder of the configuration and at the SMB share of the command line."""
    config, options = context.config, context.options
    for name, folder in config.shares.local.items():
        yield await in_thread(partial(_folder, name, Path(folder)))
    if options.share is not None and options.credential is not None:
        yield await _smb(options.share, options.credential, _policy(options.share.server, config))
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


async def _smb(ref: SmbShareRef, credential: SmbCredential, policy: SmbPolicy) -> Finding:
    share = SmbShare(ref, credential, policy=policy)
    try:
        return await in_thread(lambda: _asked(share, ref, policy))
    finally:
        share.abort()  # wakes the thread if this was cancelled; else the share is closed already


def _asked(share: SmbShare, ref: SmbShareRef, policy: SmbPolicy) -> Finding:
    id_, title = "share.smb", str(ref)
    try:
        with closing(share):
            facts, free = share.connect(), share.free_space()
    except AgentError as err:
        return failed(id_, title, str(err), fix=err.fix, code=err.code, policy=_plain(policy))
    detail = (
        f"SMB {facts.dialect}, signing {facts.signing}, encryption {facts.encryption},"
        f" logon {facts.auth}, {free // MiB} MiB free"
    )
    return passed(id_, title, detail, **asdict(facts), free=free, policy=_plain(policy))


def _policy(server: str, config: AgentConfig) -> SmbPolicy:
    """Return what jobs ask of this server, with the patience of somebody at a terminal."""
    return replace(
        smb_policy(server, config),
        connect_timeout=CONNECT_S,
        answer_timeout=ANSWER_S,
        reconnect_for=0.0,
    )


def _plain(policy: SmbPolicy) -> dict[str, str]:
    return {
        "encryption": policy.encryption.value,
        "oldest_dialect": policy.oldest_dialect.name,
        "auth": policy.auth.value,
    }


CHECK = Check("share", "local folders and one SMB share can be read", run, needs=("config",))
