"""Check `host`: the machine under the agent: room for the journal, who can read the keys, the systemd unit."""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from agent.config import AgentConfig
from agent.identity import FOLDER
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped, warned
from appliance.doctor.threads import in_thread
from imaging.units import GiB, MiB

UNIT = "imageport-agent.service"
SYSTEMD_RUNS = Path("/run/systemd/system")
COMFORTABLE = 1 * GiB
"""A journal with 10,000 unconfirmed results of 64 KiB, the worst case, takes 640 MiB."""
LEAST = 128 * MiB
"""The reserve of 64 MiB, and as much again for the write-ahead log."""
SYSTEMCTL_S = 5.0
_SHOWN = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState")


async def run(context: Context) -> AsyncIterator[Finding]:
    """Look at disk, key files and unit."""
    config = context.config
    yield await in_thread(lambda: _space(config.state))
    yield await in_thread(lambda: _modes(config))
    yield await _unit()


def _space(state: Path) -> Finding:
    id_, title = "host.disk", "room for the journal"
    folder = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail, facts = f"{free // MiB} MiB free under {state}", {"path": str(state), "free": free}
    fix = f"Free some space, or move state_dir: full disks stop jobs. `du -xsh {folder}/*` shows who has it."
    if free < LEAST:
        return failed(
            id_, title, f"{detail}, at least {LEAST // MiB} MiB are needed", fix=fix, **facts
        )
    if free < COMFORTABLE:
        return warned(
            id_, title, f"{detail}, {COMFORTABLE // MiB} MiB are comfortable", fix=fix, **facts
        )
    return passed(id_, title, detail, **facts)


def _modes(config: AgentConfig) -> Finding:
    id_, title = "host.files", "modes of key files"
    folder = config.state / FOLDER
    try:
        found = [config.state, folder, *sorted(folder.iterdir())]
    except FileNotFoundError:
        return skipped(id_, title, f"{folder} is not there: not enrolled")
    except PermissionError:
        return skipped(
            id_, title, f"{folder} belongs to another user: run the doctor as root or as that user"
        )
    named = [config.relay.proxy_credentials_file, config.uploads.proxy_credentials_file]
    found += [Path(name) for name in named if name and Path(name).exists()]
    open_ones = [path for path in found if _open_to_others(path)]
    shown = " ".join(str(path) for path in open_ones)
    told, fix = f"others may look into {shown}", f"chmod go-rwx {shown}"
    if any(path.is_file() for path in open_ones):
        return failed(id_, title, told, fix=fix, open=shown)
    if open_ones:
        return warned(id_, title, f"{told}; the keys themselves are closed", fix=fix, open=shown)
    owners = {path.stat().st_uid for path in (config.state, folder, *folder.iterdir())}
    if len(owners) > 1:
        shown = ", ".join(str(uid) for uid in sorted(owners))
        told = f"{config.state} holds files of users {shown}: the agent refuses what is not its own"
        return failed(id_, title, told, fix=f"chown -R imageport: {config.state}", owners=shown)
    return passed(
        id_, title, f"{len(found)} files and folders", owners=sorted(owners), uid=os.geteuid()
    )


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))


async def _unit() -> Finding:
    id_, title = "host.unit", f"systemd unit {UNIT}"
    if not systemd_runs():
        return skipped(id_, title, "systemd does not run this machine")
    facts = await unit_state(UNIT)
    state = f"{facts.get('ActiveState', '?')} ({facts.get('SubState', '?')})"
    if facts.get("LoadState") != "loaded":
        return skipped(id_, title, "not installed; see appliance/README.md", **facts)
    if facts.get("ActiveState") == "failed":
        why = f"{state}, result {facts.get('Result')}"
        return failed(id_, title, why, fix=f"journalctl -u {UNIT} -n 50", **facts)
    if facts.get("ActiveState") != "active":
        return warned(id_, title, state, fix=f"systemctl enable --now {UNIT}", **facts)
    return passed(id_, title, f"{state}, {facts.get('NRestarts', '?')} restarts", **facts)


def systemd_runs() -> bool:
    """Whether systemd manages this machine and can be asked."""
    return shutil.which("systemctl") is not None and SYSTEMD_RUNS.is_dir()


async def unit_state(unit: str) -> dict[str, str]:
    """Return systemd's own words about a unit; {} if it cannot be asked."""
    process = await asyncio.create_subprocess_exec(
        "systemctl", "show", unit, "--property", ",".join(_SHOWN),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SYSTEMCTL_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    rows = (line.partition("=") for line in out.decode(errors="replace").splitlines())
    return {key: value for key, _, value in rows if key in _SHOWN}


CHECK = Check("host", "disk space, modes of key files, systemd unit", run, needs=("config",))
