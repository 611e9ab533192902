"""Orders: what the agent does with each signed thing that comes down the channel. Knows no socket and runs no job.

Every method verifies, changes the journal in one transaction and returns only when that is durable; what is left to do
comes back as a value. The order state is read inside each transaction, `state` is the newest durable copy.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from agent import ending as tx
from agent.acceptance import Acceptance, Desk, Effects, statement_facts
from agent.config import AgentConfig
from agent.journal import jobs, results
from agent.journal.errors import JournalUnusable
from agent.journal.jobs import Job
from agent.journal.results import Author, Ending, Row
from agent.journal.state import (
    FLOOR,
    LINK,
    MANIFEST,
    RECORD,
    RECORD_SERIAL,
    count,
    get_value,
    load_state,
    set_value,
    store_state,
)
from agent.journal.store import Journal
from agent.trust import CLOCK_OFF, Trust
from protocol.acceptor import Hold, Reject
from protocol.errors import WrongAudience
from protocol.inbox import (
    EpochAgain,
    EpochRaise,
    InboxState,
    confirm,
    judge_epoch,
    on_time,
    open_receipt,
    open_time,
)
from protocol.jobs import JobEvent
from protocol.keys import KeyRing
from protocol.messages import InventoryItem, Time
from protocol.outcomes import Close, on_epoch
from protocol.verdicts import explained

T = TypeVar("T")
RESULTS_PAGE = 64
MAX_INVENTORY_ITEMS = 20_000


@dataclass(frozen=True, slots=True)
class EpochTaken:
    """What an epoch order did.

    Attributes:
        state: The order state that is durable now.
        taken: It counts (now or before): acknowledge and send the inventory.
        stop: Digests of running jobs that the signer knows to be over.
        reject: Nack this; with `inventory` the inventory follows.
        hold: Why it cannot be judged yet.
    """

    state: InboxState
    taken: bool = False
    stop: tuple[bytes, ...] = ()
    reject: Reject | None = None
    hold: str = ""


class Orders:
    """The one place that changes the order state. Use it from one event loop."""

    def __init__(
        self,
        journal: Journal,
        state: InboxState,
        *,
        trust: Trust,
        author: Author,
        config: AgentConfig,
        listener: Callable[[Effects], None],
    ) -> None:
        """Take an opened journal and its state; `listener` hears of every batch of orders that became durable."""
        self.journal = journal
        self.state = state
        self.trust = trust
        self.author = author
        self.counts: Counter[str] = Counter()
        self.link = b""
        self._listener = listener
        self._desk = Desk(author, trust, config, lambda: journal.full)

    async def commands(self, envelopes: list[bytes]) -> Effects:
        """Judge a batch of command envelopes; accepted and refused ones are durable when this returns."""

        def run(conn: sqlite3.Connection, state: InboxState) -> Effects:
            effects = Acceptance(conn, self._desk, state).run(envelopes)
            if effects.results:
                self.journal.scrub()
            return effects

        return await self._change(run, self._after_commands)

    async def epoch(self, envelope: bytes) -> EpochTaken:
        """Take an epoch order: compare-and-swap on the order state."""

        def run(conn: sqlite3.Connection, state: InboxState) -> EpochTaken:
            verdict = judge_epoch(envelope, state, statement_facts(self._desk, state))
            match verdict:
                case EpochRaise():
                    return self._raise(conn, state, verdict)
                case EpochAgain():
                    return EpochTaken(state, taken=True)
                case Hold(code=code):
                    return EpochTaken(state, hold=code)
                case Reject():
                    return EpochTaken(state, reject=verdict)

        return await self._change(run, self._after_epoch)

    async def receipt(self, envelope: bytes) -> None:
        """Take a receipt: results up to it are durable at the signer.

        Raises:
            FrameError, NotAuthentic: Nothing changed.
        """
        through = open_receipt(envelope, statement_facts(self._desk, self.state))

        def run(conn: sqlite3.Connection, state: InboxState) -> InboxState:
            changed = confirm(state, through)
            if changed != state:
                store_state(conn, changed)
                results.forget_old(conn, changed, now=self.trust.now_ms())
            return changed

        await self._change(run, self.settle)

    async def time(self, envelope: bytes) -> Time:
        """Take a signed time.

        Raises:
            FrameError, NotAuthentic, TimeRejected: It does not count.
        """
        trust, clocks = self.trust, self.trust.clocks
        time, key_exp = open_time(envelope, statement_facts(self._desk, self.state))
        trust.clock.feed(time, key_exp=key_exp, boot_s=clocks.boot(), wall_s=clocks.wall())
        trust.manifest_wanted = max(trust.manifest_wanted, time.manifest_serial)
        if off := trust.clock_off():
            structlog.get_logger("orders").warning("clock is off", code=CLOCK_OFF, problem=off)

        def store(conn: sqlite3.Connection, state: InboxState) -> InboxState:
            changed = on_time(state, time)
            if changed != state:
                store_state(conn, changed)
            set_value(conn, FLOOR, trust.clock.floor)
            set_value(conn, LINK, time.link)
            return changed

        await self._change(store, self.settle)
        self.link = time.link
        return time

    async def manifest(self, envelope: bytes) -> bool:
        """Take a key manifest; return whether it was news.

        Raises:
            FrameError, NotAuthentic: Not signed by the pinned root, or older than the trusted one.
        """
        trust = self.trust
        ring = KeyRing.open(envelope, root=trust.ring.root, trusted=trust.ring)
        if ring.raw == trust.ring.raw:
            return False
        floor = ring.manifest.floor

        def store(conn: sqlite3.Connection, _state: InboxState) -> None:
            set_value(conn, MANIFEST, envelope)
            if floor is not None:
                set_value(conn, FLOOR, floor)

        await self._change(store, _nothing)
        trust.ring = ring
        if floor is not None:
            trust.clock.set_floor(floor)
        return True

    async def record(self, envelope: bytes) -> bool:
        """Keep a newer record of this appliance; return whether it was news.

        Raises:
            FrameError, NotAuthentic: Not a record of this very appliance by the record key.
        """
        record = self.trust.ring.open_record(envelope)
        author = self.author
        if (record.tenant, record.id, record.device_key) != (
            author.tenant,
            author.appliance,
            author.device.public,
        ):
            raise WrongAudience(f"the record is of {record.tenant}/{record.id}")

        def store(conn: sqlite3.Connection, _state: InboxState) -> bool:
            serial = get_value(conn, RECORD_SERIAL)
            if isinstance(serial, int) and serial >= record.serial:
                return False
            set_value(conn, RECORD_SERIAL, record.serial)
            set_value(conn, RECORD, envelope)
            return True

        return await self._change(store, _nothing)

    async def results_after(self, n: int) -> list[Row]:
        """Return the next page of results above `n` of this journal's life."""
        return await self._change(
            lambda conn, state: results.after(conn, state.journal, n, RESULTS_PAGE), _nothing
        )

    async def inventory(self) -> tuple[InventoryItem, ...]:
        """Return every command that is not final, or whose result is not confirmed."""

        def run(conn: sqlite3.Connection, state: InboxState) -> list[InventoryItem]:
            waiting = [
                InventoryItem(id=job.id, digest=job.digest, state=job.state.value)
                for job in jobs.open_jobs(conn)
            ]
            rows = results.after(conn, state.journal, state.confirmed, MAX_INVENTORY_ITEMS)
            ended = [results.opened(envelope) for _, envelope, _ in rows]
            final = [InventoryItem(id=r.id, digest=r.digest, state=r.status, n=r.n) for r in ended]
            return [*waiting, *final][:MAX_INVENTORY_ITEMS]

        return tuple(await self._change(run, _nothing))

    async def end(self, digest: bytes, event: JobEvent, ending: Ending) -> Job | None:
        """Make a job final: state, numbered result and erased secrets in one transaction.

        Returns:
            The final row, None if it was final already (the signer closed it).
        """
        now = self.trust.now_ms()

        def run(conn: sqlite3.Connection, state: InboxState) -> tuple[Job, InboxState] | None:
            ended = tx.end(conn, state, digest, event, ending=ending, author=self.author, now=now)
            if ended is not None:
                self.journal.scrub()
            return ended

        def then(ended: tuple[Job, InboxState] | None) -> None:
            if ended is not None:
                self.settle(ended[1])
                self._listener(Effects(ended[1], queued=True, results=True))

        ended = await self._change(run, then)
        return ended[0] if ended is not None else None

    async def persist_counts(self) -> None:
        """Add the counters since the last call to the journal's."""
        news, self.counts = dict(self.counts), Counter()
        if news:
            await self.journal.commit(lambda conn: count(conn, news), essential=True)

    def settle(self, state: InboxState) -> None:
        """Take the newer state that a transaction made durable."""
        self.state = state

    # --- inside ---------------------------------------------------------------------------------------------

    async def _change(
        self, run: Callable[[sqlite3.Connection, InboxState], T], then: Callable[[T], None]
    ) -> T:
        """Run one transaction; `then` follows on the loop even if the caller has been cancelled meanwhile."""

        def transaction(conn: sqlite3.Connection) -> T:
            state = load_state(conn)
            if state is None:
                raise JournalUnusable("the journal has no order state")
            return run(conn, state)

        def after(done: "asyncio.Future[T]") -> None:
            if not done.cancelled() and done.exception() is None:
                then(done.result())

        work = self.journal.writer.submit(transaction, essential=True)
        work.add_done_callback(after)
        return await asyncio.shield(work)

    def _after_commands(self, effects: Effects) -> None:
        self.state = effects.state
        self.counts.update(effects.counts)
        self._listener(effects)

    def _after_epoch(self, taken: EpochTaken) -> None:
        self.state = taken.state
        code = taken.hold or (taken.reject.code if taken.reject else "epoch")
        self.counts[code] += 1
        if taken.taken:
            self._listener(Effects(taken.state, stop=list(taken.stop), queued=True, results=True))

    def _raise(self, conn: sqlite3.Connection, old: InboxState, verdict: EpochRaise) -> EpochTaken:
        state = verdict.state
        if verdict.new_life:
            state = results.renumber(conn, old, state, author=self.author)
        waiting = {job.id: job for job in jobs.open_jobs(conn)}
        what = on_epoch(verdict.epoch, [(j.id, j.digest, j.state) for j in waiting.values()])
        stop: list[bytes] = []
        for job_id, step in what.items():
            job = waiting[job_id]
            if isinstance(step, Close):
                stop.append(job.digest)
                jobs.close(conn, job, step.mark.status)
                continue
            job = jobs.move(conn, job, step.event, code=step.code)
            ending = Ending(code=step.code, report=explained(step.code, ""))
            state = results.finish(
                conn, state, job, author=self.author, ending=ending, now=self.trust.now_ms()
            )
        store_state(conn, state)
        self.journal.scrub()
        return EpochTaken(state, taken=True, stop=tuple(stop))


def _nothing(_value: object) -> None:
    """Nothing follows from this transaction."""


async def load_orders(
    journal: Journal,
    state: InboxState,
    *,
    trust: Trust,
    author: Author,
    config: AgentConfig,
    listener: Callable[[Effects], None],
) -> Orders:
    """Return the orders with what the journal remembers of time, keys and the clone ratchet."""

    def read(conn: sqlite3.Connection) -> tuple[object, object, object]:
        return get_value(conn, FLOOR), get_value(conn, MANIFEST), get_value(conn, LINK)

    floor, manifest, link = await journal.commit(read, essential=True)
    if isinstance(manifest, bytes):
        stored = KeyRing.open(manifest, root=trust.ring.root)
        if stored.manifest.serial > trust.ring.manifest.serial:
            trust.ring = stored
    if isinstance(floor, int):
        trust.clock.set_floor(floor)
    orders = Orders(journal, state, trust=trust, author=author, config=config, listener=listener)
    orders.link = link if isinstance(link, bytes) else b""
    return orders
