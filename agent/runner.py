"""Runner: which jobs run, from their start to their result. Knows no channel and no op; a stage does the work.

One TaskGroup per job inside the runner's own. Started is what the journal says is started: every move is durable before
its effect. Memory: `limits.slots` jobs of at most 136 MiB each, whatever the disk's size, plus one row a waiting job.
Beyond 256 GiB of data a job's digests go to an unnamed file in `state_dir`, 64 KiB a GiB.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import structlog

from agent import ending as tx
from agent.acceptance import Effects
from agent.attempt import Attempt, created_objects, failure
from agent.config import AgentConfig
from agent.errors import Permanent
from agent.identity import Keys
from agent.journal import jobs
from agent.journal.job import JobJournal
from agent.journal.jobs import Job
from agent.journal.results import Ending
from agent.journal.state import get_value, limits_key
from agent.journal.writer import Transaction
from agent.orders import Orders
from agent.progress import Meter
from agent.schedule import Candidate, Claims, Verdict, claims_at, judge_start, key_of, survey
from agent.secrets import reader
from agent.stages.base import Stage, StageContext
from agent.transfer.limiter import Limiter
from agent.transfer.pacing import Limits, Pacing, limits_in
from protocol.jobs import EventBody, JobEvent, State
from protocol.messages import Command
from protocol.ops import UploadArgs, parse_args
from protocol.outcomes import Step, on_revoked
from protocol.verdicts import explained

RECHECK_S = 5.0
"""Without news, or without a free slot: how often last moments (`start_by`) of waiting jobs are looked at."""
TICK_S = 0.1
_STARTED = {State.RUNNING, State.CANCELLING}
T = TypeVar("T")


class Emit(Protocol):
    """Tells the channel what a job does."""

    def __call__(self, command: bytes, n: int, body: EventBody) -> None:
        """Send, or drop if there is no connection."""
        ...


class NoStage(Permanent):
    """This installation cannot carry out the op."""

    code = "job.no-stage"
    fix = "Install the extra of imageport that brings it."


@dataclass(slots=True)
class Running:
    """One job that holds a slot. Here before its start is durable, so that a cancel finds it."""

    job: Job
    resumed: bool
    claims: Claims
    attempt: Attempt = field(default_factory=Attempt)
    meter: Meter = field(default_factory=lambda: Meter(0))
    said: int = 0


@dataclass(slots=True)
class Runner:
    """Starts, resumes, stops and ends jobs, in order of acceptance.

    Attributes:
        orders: Journal, trust and author.
        config: Slots and limits.
        keys: To open sealed secrets and to tag objects.
        stages: op -> stage.
        pacing: The bandwidth limits.
        emit: Events towards the channel.
        results_changed: Called when a result was made.
        running: digest -> job that holds a slot.
    """

    orders: Orders
    config: AgentConfig
    keys: Keys
    stages: Callable[[str], Stage | None]
    pacing: Pacing
    emit: Emit
    results_changed: Callable[[], None]
    running: dict[bytes, Running] = field(default_factory=dict)
    _started: Claims = frozenset()
    _looked_at: float = float("-inf")
    _kick: asyncio.Event = field(default_factory=asyncio.Event)
    _log: structlog.typing.FilteringBoundLogger = field(
        default_factory=lambda: structlog.get_logger("runner")
    )

    async def run(self) -> None:
        """Run jobs until cancelled; then they stop where they are and resume with the next start."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            while True:
                self._kick.clear()
                await self._schedule(group)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RECHECK_S):
                        await self._kick.wait()

    def kick(self) -> None:
        """Look again at what may start: an order, an ending, a time or a key manifest came."""
        self._kick.set()

    def apply(self, effects: Effects) -> None:
        """Carry out what a durable batch of orders means for running jobs."""
        for digest in effects.stop:
            self.stop(digest)
        for ordered in effects.limits:
            self.pacing.set(ordered.job, Limits(ordered.bandwidth, ordered.windows))
        if effects.results:
            self.results_changed()
        self.kick()

    def stop(self, digest: bytes) -> None:
        """Make a running job's stage end."""
        entry = self.running.get(digest)
        if entry is not None:
            entry.attempt.stop()
            self._say(entry, State.CANCELLING)

    def announce(self) -> None:
        """Tell a new connection how every running job is."""
        for entry in self.running.values():
            self._say(entry, State.CANCELLING if entry.attempt.stopped else State.RUNNING)

    # --- what may run ---------------------------------------------------------------------------------------

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        now = self._mono()
        waiting = self._free() or now - self._looked_at >= RECHECK_S
        if waiting:
            self._looked_at = now
        candidates = await self._commit(lambda conn: survey(conn, waiting=waiting))
        self._started = frozenset().union(*(candidate.claims for candidate in candidates))
        for candidate in candidates:
            job = candidate.job
            if self.orders.state.locked:
                return
            if job.state in _STARTED:
                await self._continue(candidate, group)
            elif job.digest not in self.running:
                await self._start(candidate, group)

    async def _continue(self, candidate: Candidate, group: asyncio.TaskGroup) -> None:
        """Resume what a process left behind; stop what a revoked key ordered."""
        job = candidate.job
        key = key_of(self.orders.trust.ring, job.kid)
        if key is not None and key.revoked is not None:
            step = on_revoked(job.state, running=key.revoked.running)
            if step is not None and step.event is JobEvent.CANCEL:
                await self._commit(lambda conn: tx.stop(conn, job.digest, code=step.code))
                self.stop(job.digest)
        if job.digest not in self.running and (self._free() or job.state is State.CANCELLING):
            self._launch(Running(job, resumed=True, claims=candidate.claims), group)

    async def _start(self, candidate: Candidate, group: asyncio.TaskGroup) -> None:
        trust, job = self.orders.trust, candidate.job
        if not (trust.proven and trust.current):
            return
        verdict = judge_start(candidate, trust)
        if verdict is Verdict.START:
            if self._free() and not self.orders.journal.full:
                await self._start_alone(job, group)
        elif verdict is not Verdict.WAIT:
            report = explained(verdict, "")
            await self.orders.end(job.digest, JobEvent.REFUSE, Ending(code=verdict, report=report))

    async def _start_alone(self, job: Job, group: asyncio.TaskGroup) -> None:
        """Start a job unless another one that has started writes to the same disk."""
        claims = await self._commit(lambda conn: claims_at(conn, job.digest))
        if claims is None:  # cancelled since the survey
            return
        held = self._started.union(*(entry.claims for entry in self.running.values()))
        if not claims & held:
            self._launch(Running(job, resumed=False, claims=claims), group)

    def _free(self) -> bool:
        return len(self.running) < self.config.limits.slots

    def _launch(self, entry: Running, group: asyncio.TaskGroup) -> None:
        self.running[entry.job.digest] = entry
        group.create_task(self._job(entry))

    # --- one job --------------------------------------------------------------------------------------------

    async def _job(self, entry: Running) -> None:
        digest = entry.job.digest
        with structlog.contextvars.bound_contextvars(job=entry.job.id.hex(), stage=entry.job.op):
            try:
                command = await self._begin(entry)
                if command is not None:
                    await self._carry_out(entry, command)
            except asyncio.CancelledError:
                # the agent stops: that is no crash of this job; closing the journal writes it
                self.orders.journal.writer.submit(
                    lambda conn: jobs.suspend(conn, digest), essential=True
                )
                raise
            finally:
                del self.running[digest]
                self.kick()

    async def _begin(self, entry: Running) -> Command | None:
        digest, now = entry.job.digest, self.orders.trust.now_ms()
        begun: tx.Begun | Step | None
        if entry.resumed:
            begun = await self._commit(lambda conn: tx.go_on(conn, digest))
        else:
            begun = await self._commit(lambda conn: tx.start(conn, digest, now=now))
        if isinstance(begun, Step):
            report = explained(begun.code, "three attempts ended without progress")
            await self._end(entry, begun.event, Ending(code=begun.code, report=report))
            return None
        if begun is None:
            return None
        entry.job = begun.job
        entry.meter = Meter(begun.job.attempt)
        return begun.command

    async def _carry_out(self, entry: Running, command: Command) -> None:
        job = entry.job
        self._log.info("job started", attempt=job.attempt, resumed=entry.resumed)
        stage = self.stages(job.op)
        if stage is None:
            await self._end(
                entry, JobEvent.FAIL, failure(NoStage(f"no stage carries out {job.op} here"))
            )
            return
        part = await self.orders.journal.job(job, now_ms=self.orders.trust.now_ms)
        with self.pacing.job(job.id, await self._limits(job, command)) as limiter:
            await self._attempt(entry, self._context(entry, command, part, limiter), stage, part)

    async def _attempt(
        self, entry: Running, context: StageContext, stage: Stage, part: JobJournal
    ) -> None:
        job, began = entry.job, self._mono()
        event, ending = JobEvent.STOPPED, Ending()
        if job.state is not State.CANCELLING:
            self._say(entry, State.RUNNING)
            try:
                event, ending = await entry.attempt.run(
                    stage, context, limit_s=self._limit(job, context)
                )
            finally:
                part.let_go()
        report = {**ending.report, "attempt": job.attempt, "warnings": entry.attempt.warnings}
        if event is JobEvent.STOPPED:
            if await self._commit(lambda conn: _is_final(conn, job.digest)):
                return  # the signer closed it
            left = await entry.attempt.clean_up(
                stage, context, limit_s=self.config.limits.clean_up_s
            )
            report["left"] = left
        elif event is JobEvent.FAIL:  # kept, so that a retry goes on where this one stopped
            report["left"] = created_objects(context)
        report["timings"] = {"attempt_s": round(self._mono() - began, 3)}
        await self._end(entry, event, replace(ending, report=report))

    async def _limits(self, job: Job, command: Command) -> Limits:
        """Return a job's own bandwidth limit: of the last `set-limits` for it, else of its order."""
        key = limits_key(job.id)
        stored = await self._commit(lambda conn: get_value(conn, key))
        if isinstance(stored, bytes):
            return limits_in(stored)
        args = parse_args(command.op, command.args_v, command.args)
        return Limits(args.bandwidth if isinstance(args, UploadArgs) else None)

    def _context(
        self, entry: Running, command: Command, part: JobJournal, limiter: Limiter
    ) -> StageContext:
        orders, job, author = self.orders, entry.job, self.orders.author
        args = parse_args(command.op, command.args_v, command.args)
        meter, mono = entry.meter, self._mono

        def progress(
            step: str, done: int, total: int, *, retries: int = 0, slow: str | None = None
        ) -> None:
            meter.report(step, done, total, now=mono(), retries=retries, slow=slow)

        return StageContext(
            args=args,
            tenant=author.tenant,
            appliance=author.appliance,
            command_id=job.id.hex(),
            origin=job.origin.hex(),
            attempt=job.attempt,
            config=self.config,
            tag_key=self.keys.tag,
            journal=part,
            secret=reader(
                args,
                self.keys.seals,
                tenant=author.tenant,
                appliance=author.appliance,
                command=job.id,
            ),
            progress=progress,
            warn=entry.attempt.warn,
            limiter=limiter,
            stop=entry.attempt.flag,
            now_ms=orders.trust.outside_ms,
            clock=mono,
        )

    async def _end(self, entry: Running, event: JobEvent, ending: Ending) -> None:
        job = await self.orders.end(entry.job.digest, event, ending)
        if job is not None:
            self._log.info("job ended", state=job.state.value, code=ending.code or "")
            self._say(entry, job.state, code=ending.code)

    # --- small ----------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Send progress, at most four times a second and job."""
        while True:
            await asyncio.sleep(TICK_S)
            now = self._mono()
            for entry in self.running.values():
                if entry.meter.due(now):
                    stopping = entry.attempt.stopped
                    self._say(entry, State.CANCELLING if stopping else State.RUNNING)

    def _say(self, entry: Running, state: State, *, code: str | None = None) -> None:
        job = entry.job
        entry.said += 1
        body = EventBody(
            at=self.orders.trust.now_ms(),
            state=state,
            op=job.op,
            progress=entry.meter.take(self._mono()),
            code=code or None,
        )
        # numbers of a later attempt are above all of an earlier one, so nothing has to be stored
        self.emit(job.id, (job.attempt << 32) + entry.said, body)

    def _limit(self, job: Job, context: StageContext) -> float | None:
        """Return what is left of the job's time: the clock runs on while the agent is down."""
        timeout_s = getattr(context.args, "timeout_s", None)
        if timeout_s is None or job.started is None:
            return None
        return max(0.0, float(timeout_s) - (self.orders.trust.now_ms() - job.started) / 1000)

    async def _commit(self, run: Transaction[T]) -> T:
        return await self.orders.journal.commit(run, essential=True)

    def _mono(self) -> float:
        return self.orders.trust.clocks.mono()


def _is_final(conn: sqlite3.Connection, digest: bytes) -> bool:
    job = jobs.get(conn, digest)
    return job is None or job.final
