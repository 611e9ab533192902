"""One websocket from the challenge to its end: reads frames, lets Orders judge, sends what follows. No reconnecting.

What may come when is known by `protocol.session.AgentSession`; this is its shell. One task each for reading, working,
writing and the clock; the first that ends, ends all. Memory: at most QUEUE_FRAMES frames of MAX_MESSAGE wait.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

import structlog
from websockets.asyncio.client import ClientConnection

from agent import statements
from agent.acceptance import Effects
from agent.backoff import NackLimit, worth_logging
from agent.orders import Orders
from protocol.acceptor import Reject
from protocol.errors import FrameError, NotAuthentic, TimeRejected
from protocol.frames import (
    CLOSE_PROTOCOL,
    CommandFrame,
    EpochFrame,
    EventFrame,
    ManifestFrame,
    ReceiptFrame,
    RecordFrame,
    ResultFrame,
    TimeFrame,
)
from protocol.ids import KeyId
from protocol.session import AgentSession
from protocol.session_events import (
    Came,
    Close,
    ComeBack,
    FetchWanted,
    HelloWanted,
    ResultsWanted,
    SessionEvent,
    TimeWanted,
    Welcomed,
)

QUEUE_FRAMES = 16
"""Frames that wait to be judged; also the most commands that share one transaction and one ack."""
NONCE_BYTES = 16
TICK_S = 1.0
BUSY_TICK_S = 0.1
QUIET_S = 0.5
"""A proven session without a command for this long has shown its backlog."""
MAX_UNSENT = 256
"""Progress is dropped while more frames than this wait for a slow socket; the next report replaces it."""

Log = structlog.typing.FilteringBoundLogger


class SessionOver(Exception):
    """This end closes the connection; `code` and `reason` go into the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class Standing:
    """What the connection achieved; read by the reconnect loop and by `imageport status`."""

    welcomed: bool = False
    generation: int = 0
    proven: bool = False
    caught_up: bool = False
    comeback: ComeBack | None = None


@dataclass(slots=True)
class Connection:
    """The shell around one AgentSession.

    Attributes:
        socket: The open websocket.
        orders: Judges and remembers.
        seal_kid: Id of the seal key to announce.
        changed: Called when `standing` changed.
    """

    socket: ClientConnection
    orders: Orders
    seal_kid: KeyId
    log: Log
    changed: Callable[[], None]
    standing: Standing = field(default_factory=Standing)
    _session: AgentSession = field(init=False)
    _frames: "asyncio.Queue[bytes]" = field(init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _nacks: NackLimit = field(default_factory=NackLimit)
    _nonces: set[bytes] = field(default_factory=set)
    _proof: bytes = b""
    _results_dirty: bool = False
    _inventory_sent: tuple[int, str] = (-1, "")
    _last_command_s: float = 0.0

    def __post_init__(self) -> None:
        state = self.orders.state
        self._frames = asyncio.Queue(QUEUE_FRAMES)
        self._session = AgentSession(
            state.journal, state.results_last, self.orders.trust.clock, self._boot()
        )

    async def run(self) -> None:
        """Serve until the socket or the session ends; raises what ended it, in an ExceptionGroup."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._work())
            group.create_task(self._write())
            group.create_task(self._tick())

    # --- what the rest of the agent says --------------------------------------------------------------------

    def send_event(self, frame: EventFrame) -> None:
        """Send progress or a state change, unless the socket is behind."""
        if len(self._session.outgoing) < MAX_UNSENT:
            self._session.send(frame)
            self._wake.set()

    def results_changed(self) -> None:
        """Send the journal's new results."""
        self._results_dirty = True
        if not self._frames.full():
            self._frames.put_nowait(b"")  # wakes the worker; a full queue will pass by here anyway

    # --- tasks ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self.socket.recv()
            if not isinstance(message, bytes) or not message:
                raise SessionOver(CLOSE_PROTOCOL, "protocol.malformed")
            await self._frames.put(message)

    async def _work(self) -> None:
        while True:
            batch = [await self._frames.get()]
            while not self._frames.empty():
                batch.append(self._frames.get_nowait())
            await self._take(batch)
            if self._results_dirty:
                self._results_dirty = False
                state = self.orders.state
                for event in self._session.set_results(
                    journal=state.journal, last=state.results_last
                ):
                    await self._on(event)
            self._wake.set()

    async def _write(self) -> None:
        outgoing = self._session.outgoing
        while True:
            await self._wake.wait()
            self._wake.clear()
            while outgoing:
                await self.socket.send(outgoing.popleft())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S if self.standing.caught_up else BUSY_TICK_S)
            boot_s, wall_s = self._boot(), self.orders.trust.clocks.wall()
            for event in self._session.timeout(boot_s=boot_s, wall_s=wall_s):
                await self._on(event)
            if self.standing.proven and not self.standing.caught_up:
                self.standing.caught_up = boot_s - self._last_command_s >= QUIET_S
                self.changed()
            self._wake.set()

    # --- what came ------------------------------------------------------------------------------------------

    async def _take(self, batch: list[bytes]) -> None:
        commands: list[bytes] = []
        for data in batch:
            for event in self._session.feed(data, boot_s=self._boot()) if data else ():
                if isinstance(event, Came) and isinstance(event.frame, CommandFrame):
                    commands.append(event.frame.env)
                    continue
                await self._commands(commands)
                commands = []
                await self._on(event)
        await self._commands(commands)

    async def _on(self, event: SessionEvent) -> None:
        match event:
            case HelloWanted():
                self._hello(event)
            case Welcomed():
                self._welcomed(event)
            case TimeWanted():
                self._session.ask_time(self._nonce(), boot_s=self._boot())
            case FetchWanted():
                self._fetch()
            case ResultsWanted():
                await self._results()
            case Came():
                await self._statement(event)
            case ComeBack():
                self.standing.comeback = event
            case Close():
                raise SessionOver(event.code, event.reason)
            case _:
                assert_never(event)

    def _hello(self, event: HelloWanted) -> None:
        orders, nonce = self.orders, self._nonce()
        frame = statements.hello_frame(
            orders.author,
            orders.state,
            challenge=event.challenge,
            nonce=nonce,
            link=orders.link,
            manifest_serial=orders.trust.ring.manifest.serial,
            seal_kid=self.seal_kid,
        )
        self._session.send_hello(frame, nonce=nonce, boot_s=self._boot())

    def _welcomed(self, event: Welcomed) -> None:
        self.standing.welcomed = True
        self.standing.generation = event.frame.generation
        self.log.info("connected", generation=event.frame.generation)
        if self.orders.trust.accept_unproven and not self.orders.state.locked:
            head = self.orders.state.head
            self._session.unproven(epoch=head.epoch, have=head.have, boot_s=self._boot())
            self._proved()
        self.changed()

    async def _results(self) -> None:
        while (wanted := self._session.next_results()) is not None:
            above, room = wanted
            rows = await self.orders.results_after(above)
            for n, envelope, report in rows[:room]:
                self._session.send_result(n, ResultFrame(env=envelope, report=report))
            if not rows:
                return
            self._wake.set()

    async def _commands(self, envelopes: list[bytes]) -> None:
        if not envelopes:
            return
        self._last_command_s = self._boot()
        effects = await self.orders.commands(envelopes)
        if effects.ack:
            self._session.send(statements.ack_frame(self.orders.author, effects.state))
        for reject in effects.rejects:
            self._nack(reject)
        if effects.hold:
            self._session.hold()
        elif effects.fetch is not None:
            self._fetch()
        self._note(effects)

    async def _statement(self, event: Came) -> None:
        frame = event.frame
        try:
            match frame:
                case TimeFrame():
                    await self._time(frame)
                case EpochFrame():
                    await self._epoch(frame)
                case ReceiptFrame():
                    await self.orders.receipt(frame.env)
                case ManifestFrame():
                    await self._manifest(frame)
                case RecordFrame():
                    await self.orders.record(frame.env)
                case CommandFrame():
                    await self._commands([frame.env])
        except (FrameError, NotAuthentic, TimeRejected) as err:
            self._count(err.code)

    async def _time(self, frame: TimeFrame) -> None:
        time = await self.orders.time(frame.env)
        if time.nonce in self._nonces:
            self._proof = time.nonce
            self.orders.trust.fresh = True
        await self._open()

    async def _open(self) -> None:
        """Let commands come if this session's time came and nothing locks the journal; else say what we hold."""
        state = self.orders.state
        if state.locked or state.inventory_due:
            await self._inventory()
        if state.locked or not self._proof:
            return
        head = state.head
        if self._session.proved(self._proof, epoch=head.epoch, have=head.have, boot_s=self._boot()):
            self._proved()

    def _proved(self) -> None:
        if not self.standing.proven:
            self.standing.proven = True
            self._last_command_s = self._boot()
            self.changed()

    async def _epoch(self, frame: EpochFrame) -> None:
        taken = await self.orders.epoch(frame.env)
        if taken.reject is not None:
            self._nack(taken.reject)
            await self._inventory(again=True)
            return
        if not taken.taken:
            return
        state = self.orders.state
        self._session.send(statements.ack_frame(self.orders.author, state))
        self._results_dirty = True
        await self._inventory(again=True)
        await self._open()
        self._release()
        self._fetch()

    async def _manifest(self, frame: ManifestFrame) -> None:
        if await self.orders.manifest(frame.env):
            self.log.info("key manifest taken", serial=self.orders.trust.ring.manifest.serial)
            self._release()
            self.changed()

    async def _inventory(self, *, again: bool = False) -> None:
        """Send the inventory, once for each (epoch, lock) of this session unless it is asked for again."""
        state = self.orders.state
        mark = (state.head.epoch, state.locked)
        if mark == self._inventory_sent and not again:
            return
        self._inventory_sent = mark
        if state.locked:  # a signer that was restored too sees nothing wrong until it is told
            self._session.send(statements.lock_frame(self.orders.author, state))
        items = await self.orders.inventory()
        self._session.send(statements.inventory_frame(self.orders.author, state, items))

    # --- small ----------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        head = self.orders.state.head
        self._session.fetch(epoch=head.epoch, have=head.have, boot_s=self._boot())

    def _release(self) -> None:
        head = self.orders.state.head
        self._session.release(epoch=head.epoch, have=head.have, boot_s=self._boot())

    def _nack(self, reject: Reject) -> None:
        if self._nacks.allow(reject.code, now=self._boot()):
            self._session.send(
                statements.nack_frame(
                    self.orders.author, self.orders.state, digest=reject.digest, code=reject.code
                )
            )

    def _note(self, effects: Effects) -> None:
        for reject in effects.rejects:
            if worth_logging(self.orders.counts[reject.code]):
                self.log.warning(
                    "order rejected",
                    code=reject.code,
                    detail=reject.detail[:200],
                    times=self.orders.counts[reject.code],
                )
        if effects.hold:
            self.log.info("orders held", code=effects.hold)

    def _count(self, code: str) -> None:
        self.orders.counts[code] += 1
        if worth_logging(self.orders.counts[code]):
            self.log.warning("statement rejected", code=code, times=self.orders.counts[code])

    def _nonce(self) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        self._nonces.add(nonce)
        return nonce

    def _boot(self) -> float:
        return self.orders.trust.clocks.boot()
