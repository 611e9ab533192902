"""The agent's composition root: picks real clocks, builds the parts, runs them until a signal. Decides nothing.

    control plane ~~ Session -> Orders (journal) -> Runner -> stages

Everything lives in one TaskGroup: what cannot go on (a full disk under a result, a broken journal) ends the process
with its named error, and the next start goes on where the journal says.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from agent import control, identity, log
from agent.acceptance import Effects
from agent.config import AgentConfig, notify_socket, watchdog_interval_s
from agent.identity import Identity
from agent.journal import leftovers
from agent.journal.jobs import recent
from agent.journal.leftovers import Leftover
from agent.journal.results import Author
from agent.journal.state import counters, get_value, limits_key
from agent.journal.store import Journal
from agent.orders import Orders, load_orders
from agent.private import require_private
from agent.runner import Runner
from agent.sdnotify import Notifier
from agent.session import Session
from agent.shares.smb.malloc import tune_malloc
from agent.stages import Services, load
from agent.stages.base import Stage
from agent.stages.services import Checks
from agent.stages.sweep import Sweeper
from agent.transfer.pacing import EVERY_S, Limits, Pacing, limits_in
from agent.trust import Clocks, Trust
from protocol.clock import SignedClock

HOUSEKEEPING_S = 60.0
LISTED_JOBS = 50

StageLoader = Callable[[str, Services], Stage | None]


class _StopAsked(Exception):
    """A signal asked for a clean stop."""


@dataclass(slots=True)
class App:
    """The parts of one running agent."""

    config: AgentConfig
    identity: Identity
    journal: Journal
    orders: Orders
    runner: Runner
    session: Session
    services: Services
    notifier: Notifier
    _proven: bool = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or something cannot go on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stop_when(stop))
                group.create_task(control.serve(self.config.control_path, self._answers()))
                group.create_task(self.session.run())
                group.create_task(self._run_jobs())
                group.create_task(self._housekeep())
                group.create_task(self._pace())
                group.create_task(self._watchdog())
                self.notifier.ready("starting")
        except* _StopAsked:
            structlog.get_logger("agent").info("agent stops")
        finally:
            self.notifier.stopping()

    def on_change(self) -> None:
        """The channel changed: a new proven session may start jobs and wants to hear of running ones."""
        health = self.session.health
        proven = health.state == "proven"
        if proven and not self._proven:
            self.runner.announce()
            self.runner.results_changed()
        self._proven = proven
        self.runner.kick()
        self.notifier.status(f"{health.state}, {len(self.runner.running)} jobs. {health.problem}")

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        raise _StopAsked

    async def _run_jobs(self) -> None:
        """Let a waiting cancel win before anything resumes (PROTOCOL 5)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.limits.drain_s):
                await self.session.caught_up.wait()
        await self.runner.run()

    async def _pace(self) -> None:
        """Let the time of day change the bandwidth limits."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.runner.pacing.apply()

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            await self.orders.persist_counts()

    async def _watchdog(self) -> None:
        interval = watchdog_interval_s()
        while interval is not None:
            self.notifier.alive()
            await asyncio.sleep(interval / 2)

    # --- what `imageport status` asks -----------------------------------------------------------------------

    def _answers(self) -> Mapping[str, control.Answerer]:
        return {"status": self._status, "jobs": self._jobs, "sweep": self._sweep}

    async def _status(self, _request: Mapping[str, Any]) -> Mapping[str, Any]:
        state, health, trust = self.orders.state, self.session.health, self.orders.trust
        await self.orders.persist_counts()
        return {
            "appliance": self.orders.author.appliance,
            "tenant": self.orders.author.tenant,
            "channel": health.state,
            "problem": health.problem or trust.clock_off(),
            "attempts": health.attempts,
            "path": _path(self.session),
            "epoch": state.head.epoch,
            "have": state.head.have,
            "results": state.results_last,
            "confirmed": state.confirmed,
            "locked": state.locked,
            "journal": state.journal.hex(),
            "journal_full": self.journal.full,
            "manifest": trust.ring.manifest.serial,
            "signed_time": trust.clock.now(boot_s=trust.clocks.boot()),
            "floor": trust.clock.floor,
            "wall": int(trust.clocks.wall() * 1000),
            "bandwidth": self.runner.pacing.limiter.rate,
            "running": [entry.job.id.hex() for entry in self.runner.running.values()],
            "counters": await self.journal.commit(counters, essential=True),
        }

    async def _jobs(self, _request: Mapping[str, Any]) -> Mapping[str, Any]:
        rows = await self.journal.commit(lambda conn: recent(conn, LISTED_JOBS), essential=True)
        meters = {digest: entry.meter for digest, entry in self.runner.running.items()}
        return {
            "jobs": [
                {
                    "id": job.id.hex(),
                    "op": job.op,
                    "state": job.state.value,
                    "attempt": job.attempt,
                    "accepted": job.accepted,
                    "started": job.started,
                    "code": job.code,
                    "progress": _progress(meters, job.digest),
                }
                for job in rows
            ]
        }

    async def _sweep(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if locked := self.orders.state.locked:
            return {"error": f"not while the journal is locked ({locked}): it may be an older copy"}
        if not self.orders.trust.fresh:  # `accept_unproven` accepts orders; it proves no journal
            return {"error": "not before signed time came: the journal may be an older copy"}
        sweeper = Sweeper(
            self.services, self.config, self.identity.keys.tag, self.orders.author.appliance
        )
        return {"leftovers": await sweeper.sweep(apply=request.get("apply") is True)}


@asynccontextmanager
async def build(
    config: AgentConfig,
    *,
    stages: StageLoader = load,
    checks: Checks | None = None,
    clocks: Clocks | None = None,
) -> AsyncIterator[App]:
    """Open identity and journal and put the parts together.

    Args:
        config: The merged configuration.
        stages: op -> stage.
        checks: The doctor's checks for the `diagnostics` op.
        clocks: Other clocks than the machine's.

    Raises:
        NotPrivate, NotEnrolled, IdentityDamaged, MachineChanged, JournalInUse, JournalUnusable, JournalTooNew.
    """
    require_private(config.state, config.state / identity.FOLDER)
    me = identity.load(config.state / identity.FOLDER, machine_id=identity.read_machine_id())
    journal = Journal(config.state, reserve=config.journal.reserve)
    notifier = Notifier(notify_socket())
    try:
        state = await journal.begin(me.record, me.record_payload)
        trust = Trust(me.ring, SignedClock(), clocks or real_clocks(), config.accept_unproven)
        author = Author(me.record.tenant, me.record.id, me.keys.device)
        parts: list[App] = []  # the listeners below hear nothing before it is filled
        orders = await load_orders(
            journal,
            state,
            trust=trust,
            author=author,
            config=config,
            listener=lambda effects: _apply(parts, effects),
        )
        services = _services(journal, checks)
        session = Session(config, orders, me.keys.seal.kid, random.random, lambda: _changed(parts))
        runner = Runner(
            orders,
            config,
            me.keys,
            lambda op: stages(op, services),
            await _pacing(journal, config, trust),
            session.emit,
            session.results_changed,
        )
        parts.append(App(config, me, journal, orders, runner, session, services, notifier))
        yield parts[0]
    finally:
        journal.close()
        notifier.close()


async def serve(
    config: AgentConfig, *, stages: StageLoader = load, checks: Checks | None = None
) -> None:
    """Run an agent until SIGTERM or SIGINT; jobs keep their state and resume with the next start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with build(config, stages=stages, checks=checks) as app:
        await app.run(stop)


def run(config: AgentConfig, *, stages: StageLoader = load, checks: Checks | None = None) -> None:
    """Configure the process and run the agent; see `serve`."""
    log.configure(config.log_level)
    tune_malloc()
    asyncio.run(serve(config, stages=stages, checks=checks))


def real_clocks() -> Clocks:
    """Return this machine's clocks."""
    return Clocks(
        boot=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall=time.time,
        mono=time.monotonic,
    )


def _apply(parts: list[App], effects: Effects) -> None:
    if parts:
        parts[0].runner.apply(effects)


def _changed(parts: list[App]) -> None:
    if parts:
        parts[0].on_change()


def _services(journal: Journal, checks: Checks | None) -> Services:
    async def find() -> list[Leftover]:
        return await journal.commit(leftovers.find, essential=True)

    async def mark_removed(leftover: Leftover) -> None:
        await journal.commit(lambda conn: leftovers.mark_removed(conn, leftover), essential=True)

    return Services(find, mark_removed, checks)


async def _pacing(journal: Journal, config: AgentConfig, trust: Trust) -> Pacing:
    """Return the bandwidth limits: of the last `set-limits`, else the configuration's."""

    def moment() -> datetime:
        return datetime.fromtimestamp(trust.outside_ms() / 1000, UTC).astimezone()

    key = limits_key(None)
    stored = await journal.commit(lambda conn: get_value(conn, key), essential=True)
    limits = Limits(config.limits.bandwidth, config.limits.windows)
    return Pacing(
        limits_in(stored) if isinstance(stored, bytes) else limits, moment, trust.clocks.mono
    )


def _path(session: Session) -> dict[str, str]:
    path = session.health.path
    if path is None:
        return {}
    return {
        "peer": path.peer,
        "tls": path.tls_version,
        "issuer": path.tls_issuer,
        "proxy": path.proxy,
    }


def _progress(meters: Mapping[bytes, Any], digest: bytes) -> dict[str, Any] | None:
    meter = meters.get(digest)
    latest = meter.latest if meter is not None else None
    if latest is None:
        return None
    return {"step": latest.step, "done": latest.done, "total": latest.total, "rate": latest.rate}
