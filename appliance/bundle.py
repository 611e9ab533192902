"""The support bundle: what an engineer needs to understand this appliance, in one zip without secrets. Sends nothing.

Each file has a collector of its own; one that fails leaves its reason in the index and stops no other. Collectors read
no sealed field and no envelope; what they write goes through appliance.scrub besides, for what slipped into a text.

| file | content |
|---|---|
| index.json | SHA-256 and size of every other file; why a file is missing |
| doctor.json, status.json | as the commands with `--json` print them |
| config.json | merged values with their origins |
| journal.json, jobs.json | counts; the last 200 jobs |
| versions.json, units.json | of everything installed; systemd's words about the three services |
| logs/NAME | the end of each log that was given |
"""

import asyncio
import hashlib
import json
import os
import platform
import sqlite3
import ssl
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from agent import control
from agent.config import AgentConfig, ConfigError, Loaded
from agent.errors import Permanent
from agent.journal.jobs import Job, recent
from agent.journal.schema import open_reader
from agent.journal.store import FILE
from appliance.doctor.base import Context, Options
from appliance.doctor.checks.host import systemd_runs, unit_state
from appliance.doctor.checks.journal import read_facts
from appliance.doctor.registry import CHECKS
from appliance.doctor.run import examine
from appliance.doctor.service import report
from appliance.doctor.threads import in_thread
from appliance.scrub import Scrubber, known_secrets
from imaging.units import MiB

INDEX = "index.json"
COLLECTOR_S = 30.0
DOCTOR_S = 20.0
JOBS = 200
LOG_TAIL = 8 * MiB
UNITS = ("imageport-agent.service", "imageport-relay.service", "imageport-signer.service")


class BundleNotWritten(Permanent):
    """The zip cannot be written where it should be."""

    code = "bundle.not-written"
    exit_code = 73
    fix = "Name another file with -o."


@dataclass(frozen=True, slots=True)
class Request:
    """What to collect.

    Attributes:
        loaded: The configuration, or why there is none.
        logs: Log files to take the end of.
        wall: Seconds since 1970 by this machine.
    """

    loaded: Loaded | ConfigError
    logs: tuple[Path, ...]
    wall: Callable[[], float]

    @property
    def config(self) -> AgentConfig:
        """The configuration; collectors that need it fail with its error."""
        if isinstance(self.loaded, ConfigError):
            raise self.loaded
        return self.loaded.config


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was collected.

    Attributes:
        files: Name -> content, without the index.
        missing: Name -> why.
    """

    files: dict[str, bytes]
    missing: dict[str, str]

    def index(self, created: float) -> dict[str, Any]:
        """Return what index.json says."""
        rows = [
            {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in sorted(self.files.items())
        ]
        missing = [{"name": name, "reason": why} for name, why in sorted(self.missing.items())]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
        return {"schema": "bundle-index/1", "created": stamp, "files": rows, "missing": missing}


Collector = Callable[[Request, Scrubber], Awaitable[str]]


async def collect(request: Request) -> Bundle:
    """Run every collector, all at once."""
    known = (
        set() if isinstance(request.loaded, ConfigError) else known_secrets(request.loaded.config)
    )
    scrubber, bundle = Scrubber(known), Bundle({}, {})
    async with asyncio.TaskGroup() as group:
        for name, collector in _collectors(request):
            group.create_task(_one(bundle, name, collector, request, scrubber))
    return bundle


def write(bundle: Bundle, path: Path, *, created: float) -> None:
    """Write the zip, readable by its owner only.

    Raises:
        BundleNotWritten: The file is there already, or cannot be made.
    """
    index = json.dumps(bundle.index(created), indent=2).encode()
    stamp = time.gmtime(max(created, 315532800))[:6]  # a zip knows no time before 1980
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out,
        ):
            for name, data in [(INDEX, index), *sorted(bundle.files.items())]:
                out.writestr(zipfile.ZipInfo(name, stamp), data, zipfile.ZIP_DEFLATED)
    except OSError as err:
        raise BundleNotWritten(f"{path}: {err.strerror}", path=str(path)) from err


async def _one(
    bundle: Bundle, name: str, collector: Collector, request: Request, scrubber: Scrubber
) -> None:
    try:
        async with asyncio.timeout(COLLECTOR_S):
            text = await collector(request, scrubber)
        bundle.files[name] = text.encode("utf-8", errors="replace")
    except Exception as err:  # noqa: BLE001 - the other files are wanted all the more
        why = str(err) or f"no answer within {COLLECTOR_S:g} s"
        bundle.missing[name] = scrubber.text(f"{type(err).__name__}: {why}")


def _collectors(request: Request) -> Iterator[tuple[str, Collector]]:
    yield "doctor.json", _doctor
    yield "config.json", _config
    yield "status.json", _status
    yield "journal.json", _journal
    yield "jobs.json", _jobs
    yield "versions.json", _versions
    yield "units.json", _units
    for number, path in enumerate(request.logs):
        yield f"logs/{number}-{path.name}", _log_of(path)


async def _doctor(request: Request, scrubber: Scrubber) -> str:
    context = Context(request.loaded, Options(), request.wall)
    findings = await examine(CHECKS, context, timeout_s=DOCTOR_S)
    return scrubber.json({"schema": "doctor/1", **report(findings)})


async def _config(request: Request, scrubber: Scrubber) -> str:
    if isinstance(request.loaded, ConfigError):
        raise request.loaded
    values = {
        key: {"value": value, "origin": origin} for key, value, origin in request.loaded.rows()
    }
    return scrubber.json({"schema": "config/1", "values": values})


async def _status(request: Request, scrubber: Scrubber) -> str:
    return scrubber.json(await control.ask(request.config.control_path, {"get": "status"}))


async def _journal(request: Request, scrubber: Scrubber) -> str:
    return scrubber.json(await in_thread(lambda: _from_journal(request.config, read_facts)))


async def _jobs(request: Request, scrubber: Scrubber) -> str:
    rows = await in_thread(
        lambda: _from_journal(
            request.config, lambda conn: [_plain(job) for job in recent(conn, JOBS)]
        )
    )
    return scrubber.json(rows)


def _from_journal(config: AgentConfig, read: Callable[[sqlite3.Connection], Any]) -> Any:  # noqa: ANN401 - JSON
    with closing(open_reader(config.state / FILE)) as conn:
        return read(conn)


def _plain(job: Job) -> dict[str, Any]:
    return {
        key: value.hex() if isinstance(value, bytes) else value
        for key, value in msgspec.to_builtins(job, builtin_types=(bytes,)).items()
    }


async def _versions(_request: Request, scrubber: Scrubber) -> str:
    packages = await in_thread(
        lambda: {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    )
    return scrubber.json(
        {
            "python": platform.python_version(),
            "system": platform.platform(),
            "openssl": ssl.OPENSSL_VERSION,
            "sqlite": sqlite3.sqlite_version,
            "packages": packages,
        }
    )


async def _units(_request: Request, scrubber: Scrubber) -> str:
    if not systemd_runs():
        return scrubber.json({"systemd": False})
    return scrubber.json({"systemd": True} | {unit: await unit_state(unit) for unit in UNITS})


def _log_of(path: Path) -> Collector:
    async def collector(_request: Request, scrubber: Scrubber) -> str:
        return await in_thread(lambda: _tail(path, scrubber))

    return collector


def _tail(path: Path, scrubber: Scrubber) -> str:
    """Return the last lines of a log; a private key that spans lines is hidden before they are looked at one by one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL))
        text = file.read(LOG_TAIL).decode("utf-8", errors="replace")
    if size > LOG_TAIL:
        text = text.partition("\n")[2]  # half a line may be half a secret
    lines = scrubber.without_private_keys(text).splitlines()
    return "".join(scrubber.log_line(line) + "\n" for line in lines)
