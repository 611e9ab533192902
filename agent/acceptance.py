"""One acceptance transaction: judges a batch of command envelopes in order and writes what each of them changes.

Runs in the journal's thread, inside a transaction; the loop applies the `Effects` once they are durable. The rules are
protocol.acceptor, protocol.inbox and protocol.outcomes; here they meet the tables (PROTOCOL 3, 5).
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.config import AgentConfig
from agent.journal import inbox, jobs, results
from agent.journal.jobs import Job
from agent.journal.results import Author, Ending
from agent.journal.state import limits_key, set_value, store_state
from agent.policy import forbidden
from agent.trust import Trust
from protocol.acceptor import (
    Accept,
    Again,
    Facts,
    Gap,
    Hold,
    Refuse,
    Reject,
    judge,
)
from protocol.inbox import InboxState, confirm, consume
from protocol.jobs import JobEvent, State
from protocol.messages import MAX_COMMAND, Command, CommandRef, Output
from protocol.ops import SETTINGS, CancelArgs, SetLimitsArgs, parse_args
from protocol.outcomes import cancel_target
from protocol.signed import parse_envelope
from protocol.verdicts import explained

MAX_UNSTARTED = 1000
FULL = "journal.full"
ELSEWHERE = "job.predecessor-elsewhere"
NOT_RETRYABLE = "job.not-retryable"


@dataclass(slots=True)
class Effects:
    """What the loop does after the transaction.

    Attributes:
        state: The order state that is durable now.
        ack: Say how far the inbox is.
        fetch: Fetch from this seq: something before it is missing.
        hold: Why the next command cannot be judged yet, "" if nothing is held.
        rejects: Nack these.
        stop: Digests of running jobs that a cancel reached.
        queued: Jobs may be startable.
        results: Results were made.
        limits: What `set-limits` orders said, in order.
        counts: Verdicts by code.
    """

    state: InboxState
    ack: bool = False
    fetch: int | None = None
    hold: str = ""
    rejects: list[Reject] = field(default_factory=list)
    stop: list[bytes] = field(default_factory=list)
    queued: bool = False
    results: bool = False
    limits: list[SetLimitsArgs] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Desk:
    """Who judges: the parts that stay the same from one transaction to the next."""

    author: Author
    trust: Trust
    config: AgentConfig
    full: Callable[[], bool]


def statement_facts(desk: Desk, state: InboxState) -> Facts:
    """Return what is needed to verify a time, a receipt or an epoch: who we are and what we believe."""
    trust = desk.trust
    return Facts(
        tenant=desk.author.tenant,
        appliance=desk.author.appliance,
        ring=trust.ring,
        head=state.head,
        clock=trust.clock,
        boot_s=trust.clocks.boot(),
        proven=trust.proven,
        manifest_wanted=trust.manifest_wanted,
        accept_unproven=trust.accept_unproven,
        digest_at=lambda _seq: None,
        digest_of_id=lambda _command: None,
        policy=lambda command: _policy(command, desk),
        room=True,
        locked=state.locked,
    )


def command_facts(conn: sqlite3.Connection, desk: Desk, state: InboxState, *, room: bool) -> Facts:
    """Return the acceptor's view of this journal, for commands."""
    return replace(
        statement_facts(desk, state),
        digest_at=lambda seq: inbox.digest_at(conn, state.head.epoch, seq),
        digest_of_id=lambda command: inbox.digest_of_id(conn, command),
        room=room,
        retry=lambda ref: _retry(conn, ref),
    )


class Acceptance:
    """One batch. `run` is the whole transaction."""

    def __init__(self, conn: sqlite3.Connection, desk: Desk, state: InboxState) -> None:
        """Begin with the state that this very transaction read."""
        self._conn = conn
        self._desk = desk
        self._state = state
        self._now = desk.trust.now_ms()
        self._effects = Effects(state)

    def run(self, envelopes: list[bytes]) -> Effects:
        """Judge every envelope in order; later ones see what earlier ones changed."""
        before = self._state
        conn, desk = self._conn, self._desk
        room = _results_fit(conn, before)  # counted once: it reads every unconfirmed result's row
        for envelope in envelopes:
            waits = jobs.unstarted(conn) < MAX_UNSTARTED
            facts = command_facts(conn, desk, self._state, room=room and waits)
            self._apply(judge(envelope, facts), envelope)
        if self._state != before:
            store_state(self._conn, self._state)
            inbox.forget_old(self._conn)
        self._effects.state = self._state
        return self._effects

    def _apply(
        self, verdict: Accept | Refuse | Again | Gap | Hold | Reject, envelope: bytes
    ) -> None:
        effects = self._effects
        match verdict:
            case Accept() | Refuse():
                self._consume(verdict, envelope)
                effects.ack = True
            case Again(old=old):
                effects.counts["protocol.old" if old else "protocol.duplicate"] += 1
                effects.ack = True
            case Gap(seq=seq):
                effects.counts["protocol.gap"] += 1
                effects.fetch = seq
            case Hold(code=code):
                effects.counts[code] += 1
                effects.hold = code
            case Reject(code=code):
                effects.counts[code] += 1
                effects.rejects.append(verdict)

    def _consume(self, verdict: Accept | Refuse, envelope: bytes) -> None:
        command = verdict.command
        self._state = consume(self._state, verdict)
        code = verdict.code if isinstance(verdict, Refuse) else _elsewhere(command, self._desk)
        detail = verdict.detail if isinstance(verdict, Refuse) else ""
        runs = not code and command.op not in SETTINGS
        inbox.put(
            self._conn,
            verdict.head,
            digest=verdict.digest,
            command_id=command.id,
            envelope=envelope if runs else None,
        )
        kid = parse_envelope(envelope, limit=MAX_COMMAND).k
        job = jobs.insert(
            self._conn, command, digest=verdict.digest, kid=kid, now=self._now, joins=not code
        )
        if command.results_through is not None:
            self._state = confirm(self._state, command.results_through)
            results.forget_old(self._conn, self._state, now=self._now)
        self._effects.counts[code or "accepted"] += 1
        if code:
            self._refuse(job, code, detail)
        elif runs:
            self._queue(job, command)
        else:
            self._settle(job, command)

    def _refuse(self, job: Job, code: str, detail: str) -> None:
        job = jobs.move(self._conn, job, JobEvent.REFUSE, code=code)
        self._finish(job, Ending(code=code, report=explained(code, detail)))

    def _queue(self, job: Job, command: Command) -> None:
        if command.after:
            jobs.move(self._conn, job, JobEvent.WAIT)
        self._effects.queued = True

    def _settle(self, job: Job, command: Command) -> None:
        """Carry out a setting: it takes effect in seq order and holds no slot."""
        job = jobs.begin(self._conn, job, now=self._now)
        args = parse_args(command.op, command.args_v, command.args)
        outputs: tuple[Output, ...] = ()
        if isinstance(args, CancelArgs):
            found = self._cancel(args)
            outputs = (Output(name="cancel", type="cancel", value={"found": found}),)
        elif isinstance(args, SetLimitsArgs):
            set_value(self._conn, limits_key(args.job), command.args)
            self._effects.limits.append(args)
        self._finish(jobs.move(self._conn, job, JobEvent.SUCCEED), Ending(outputs=outputs))

    def _cancel(self, args: CancelArgs) -> str:
        target = jobs.get(self._conn, args.digest)
        same = target is not None and target.id == args.id
        found = cancel_target(target.state if target else None, same_digest=same)
        if target is None or found.step is None:
            return found.found
        if found.found == "running":
            if target.no_return:  # its own end stands, so it goes on as if nothing had come
                return found.found
            self._effects.stop.append(target.digest)
        target = jobs.move(self._conn, target, found.step.event, code=found.step.code)
        if target.state is State.CANCELLED:
            self._finish(target, Ending(code=found.step.code))
        self._effects.queued = True
        return found.found

    def _finish(self, job: Job, ending: Ending) -> None:
        self._state = results.finish(
            self._conn, self._state, job, author=self._desk.author, ending=ending, now=self._now
        )
        self._effects.results = True


def _policy(command: Command, desk: Desk) -> str | None:
    if desk.full() and command.op != "cancel":
        return FULL
    return forbidden(command, desk.config)


def _results_fit(conn: sqlite3.Connection, state: InboxState) -> bool:
    count, size = results.backlog(conn, state)
    return count < results.MAX_UNCONFIRMED and size < results.MAX_UNCONFIRMED_BYTES


def _retry(conn: sqlite3.Connection, ref: CommandRef) -> str | None:
    job = jobs.get(conn, ref.digest)
    if job is None or job.id != ref.id or not job.final:
        return NOT_RETRYABLE
    return NOT_RETRYABLE if job.retried or job.state is State.SUCCEEDED else None


def _elsewhere(command: Command, desk: Desk) -> str:
    """Name the refusal of chains that span appliances: their results are not asked for by this release."""
    mine = (desk.author.appliance, desk.author.device.public)
    here = all((after.audience, after.device_key) == mine for after in command.after)
    return "" if here else ELSEWHERE
