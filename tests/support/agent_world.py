"""An agent in this process, or in one of its own that can be killed, with a stage that tests command.

`StepStage` stands in for `upload`: it does N units of work, each one line appended to a file and one receipt, and can
be told to wait or to fail.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from agent.app import App, StageLoader, build
from agent.config import AgentConfig, parse
from agent.errors import Permanent
from agent.stages import Services, load
from agent.stages.base import Stage, StageContext, StageOutcome
from agent.targets.base import Intent
from protocol.messages import Output
from protocol.ops import LocalTarget, UploadArgs
from tests.support.agent_relay_double import Double, enrol

ROOT_DIGEST = "sha256:" + "ab" * 32
UNIT = 4096
SCOPE = {"provider": "test", "account": "a", "region": "r"}


def settings(state: Path, url: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a test's agent, as a TOML file would hold it."""
    (state / "images").mkdir(parents=True, exist_ok=True)
    (state / "disks").mkdir(exist_ok=True)
    plain: dict[str, Any] = {
        "state_dir": str(state),
        "log_level": "warning",
        "relay": {"url": url, "backoff_base_s": 0.02, "backoff_cap_s": 0.1},
        "shares": {"local": {"images": str(state / "images")}},
        "targets": {"local": {"disks": str(state / "disks")}},
        "limits": {"drain_s": 3.0, "clean_up_s": 5.0},
        "journal": {"reserve": 1024 * 1024},
    }
    for key, value in changes.items():
        plain[key] = {**plain.get(key, {}), **value} if isinstance(value, dict) else value
    return plain


@dataclass
class StepStage:
    """N units of work; everything that it does is a line of `log`.

    Attributes:
        units: How many.
        gate: Awaited before every unit, to hold the stage where a test wants it.
        fail: Raise this after the given unit.
        checkpoints: Keep receipts; without them every attempt begins anew.
    """

    op: ClassVar[str] = "upload"
    log: Path
    units: int = 3
    gate: Callable[[int], Any] | None = None
    fail: tuple[int, Exception] | None = None
    checkpoints: bool = True
    leave: list[str] = field(default_factory=list)
    rates: list[int | None] = field(default_factory=list)
    """The job's own bandwidth limit at the end of every unit's gate."""

    async def run(self, job: StageContext) -> StageOutcome:
        name = self._name(job)
        self._say(f"{name} attempt {job.attempt}")
        intent = Intent("test.disk", SCOPE, name)
        await job.journal.record(intent)
        await job.journal.created(intent, f"id-{name}")
        done = {offset // UNIT for offset, _, _ in job.journal.load()}
        for unit in range(self.units):
            if unit in done:
                continue
            if self.gate is not None:
                await self.gate(unit)
            self.rates.append(job.limiter.rate)
            self._say(f"{name} unit {unit}")
            if self.checkpoints:
                job.journal.add(unit * UNIT, UNIT, bytes(32))
                await job.journal.flush()
            job.progress("transfer", (unit + 1) * UNIT, self.units * UNIT)
            if self.fail is not None and self.fail[0] == unit:
                raise self.fail[1]
        await job.journal.point_of_no_return()
        self._say(f"{name} done")
        return StageOutcome(
            (Output(name="disk", type="test.disk", value={"id": f"id-{name}"}),),
            ROOT_DIGEST,
            {"units": self.units},
        )

    async def clean_up(self, job: StageContext) -> list[str]:
        for known in job.journal.intents():
            self._say(f"{known.name} removed")
            await job.journal.removed(known)
        return list(self.leave)

    def lines(self) -> list[str]:
        """Return everything that was done, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def _say(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(line + "\n")

    @staticmethod
    def _name(job: StageContext) -> str:
        assert isinstance(job.args, UploadArgs)
        assert isinstance(job.args.target, LocalTarget)
        return job.args.target.disk


class Broken(Permanent):
    """What a test lets a stage fail with."""

    code = "test.broken"


def loader(stage: StepStage) -> StageLoader:
    """Return a registry in which `stage` carries out uploads."""

    def find(op: str, services: Services) -> Stage | None:
        return stage if op == "upload" else load(op, services)

    return find


@asynccontextmanager
async def agent(config: AgentConfig, stage: StepStage, **options: Any) -> AsyncIterator[App]:
    """Run an agent in this process for the block; it stops cleanly at its end."""
    stop = asyncio.Event()
    async with build(config, stages=loader(stage), **options) as app, asyncio.TaskGroup() as group:
        running = group.create_task(app.run(stop))
        try:
            yield app
        finally:
            stop.set()
            await running


def prepare(folder: Path, url: str, **changes: Any) -> AgentConfig:
    """Enrol in a fresh state folder and return its configuration."""
    state = folder / "state"
    if not state.exists():
        enrol(state)
    return parse(settings(state, url, **changes))


@dataclass
class AgentProcess:
    """A real agent that can be killed. Its stage is a StepStage whose log is `effects`."""

    config_file: Path
    effects: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, die: str = "", units: int = 3) -> None:
        """Start it; `die` is `before:K` or `after:K`: SIGKILL itself around its K-th writing transaction."""
        command = [
            sys.executable, "-m", "tests.support.agent_process",
            str(self.config_file), str(self.effects), die, str(units),
        ]  # fmt: skip
        self.process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])

    def kill(self) -> None:
        """SIGKILL and reap."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self, double: Double) -> int | None:
        """SIGTERM and return the exit code; the double's loop goes on meanwhile."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        await double.until(lambda: self.dead, "a clean stop")
        return self.process.returncode

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self.process is not None and self.process.poll() is not None

    def lines(self) -> list[str]:
        """Return everything that its stages did."""
        return self.effects.read_text().splitlines() if self.effects.exists() else []
