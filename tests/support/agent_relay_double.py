"""A relay with a control plane behind it, for tests of the agent: a websocket server that keeps everything in memory.

It speaks `protocol.relay_session`, signs with the fixed keys of `protocol_world`, and lies on request. Tests wait for
what it saw (`until`), never for time.
"""

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from agent import identity
from protocol.acceptor import Head
from protocol.codec import encode
from protocol.enrol import EnrolAnswer, root_fingerprint
from protocol.frames import (
    CLOSE_SUPERSEDED,
    MAX_FRAME,
    CommandFrame,
    EpochFrame,
    GoingAway,
    ManifestFrame,
    ReceiptFrame,
    Stored,
    TimeFrame,
    Welcome,
    frame_bytes,
)
from protocol.ids import digest_of
from protocol.messages import (
    Ack,
    Command,
    CommandRef,
    Epoch,
    Event,
    Hello,
    Inventory,
    Kind,
    Manifest,
    Nack,
    Receipt,
    Result,
    ResultsThrough,
)
from protocol.ops import CancelArgs, LocalShare, LocalTarget, SweepArgs, UploadArgs
from protocol.relay_session import (
    Claimed,
    RelayEvent,
    RelaySession,
    Stated,
    TimeAsked,
    Verified,
)
from protocol.session_events import Close
from protocol.signed import parse_envelope, sign
from tests.support import protocol_world as w

HANG_S = 30.0
NOW = w.T0 + w.HOUR_MS


def enrol(state: Path) -> None:
    """Write the identity of `protocol_world`'s appliance into a state folder, as an enrolment would."""
    folder = state / identity.FOLDER
    folder.mkdir(parents=True)
    identity.write_durable(folder / "device.key", w.DEVICE.seed)
    identity.write_durable(folder / "tag.key", b"T" * 32)
    identity.write_durable(folder / f"seal-{w.SEAL.kid.hex()}.key", w.SEAL.raw)
    answer = EnrolAnswer(
        v=1,
        root=w.ROOT.public,
        manifest=sign(Kind.MANIFEST, w.manifest(), w.ROOT),
        record=sign(Kind.RECORD, w.record(), w.RECORD),
    )
    identity.store_answer(folder, answer, fingerprint=root_fingerprint(w.ROOT.public))


@dataclass
class Line:
    """The signer's side of one appliance: numbers and signs commands."""

    head: Head = w.HEAD_0
    count: int = 0

    def order(self, op: str, args: Any, **changes: Any) -> tuple[Command, bytes]:
        """Sign the next command; `sign_with` names another key than the command key."""
        key = changes.pop("sign_with", w.COMMAND)
        self.count += 1
        fields = {"id": os.urandom(16), "op": op, "args": encode(args), **changes}
        command = w.command(self.head, **fields)
        envelope = sign(Kind.COMMAND, command, key)
        self.head = self.head.after(digest_of(parse_envelope(envelope, limit=MAX_FRAME).p))
        return command, envelope

    def upload(self, disk: str = "disk", **changes: Any) -> tuple[Command, bytes]:
        """Sign an upload from and to local folders."""
        args = UploadArgs(
            source=LocalShare(name="images"),
            path=changes.pop("path", "a.raw"),
            target=LocalTarget(name="disks", disk=disk),
        )
        return self.order("upload", args, **changes)

    def cancel(self, command: Command, envelope: bytes) -> tuple[Command, bytes]:
        """Sign a cancel of an earlier command."""
        digest = parse_envelope(envelope, limit=MAX_FRAME).digest
        return self.order("cancel", CancelArgs(id=command.id, digest=digest))

    def sweep(self, **changes: Any) -> tuple[Command, bytes]:
        """Sign a dry sweep."""
        return self.order("sweep", SweepArgs(), **changes)


def ref(command: Command) -> CommandRef:
    """Name a command as `retry_of` does."""
    return CommandRef(id=command.id, digest=digest_of(encode(command)))


@dataclass
class Double:
    """The relay. Set its switches before or while an agent is connected.

    Attributes:
        confirm: Send a receipt for every result.
        store_results: Say `stored` and keep results.
        answer_time: Answer time requests.
        seen: (epoch, have) that signed time reports; None: the highest verified one.
        manifest_serial: What signed time names.
        on_statement: Called with every verified statement, before it is acted on.
    """

    line: Line = field(default_factory=Line)
    queue: dict[tuple[int, int], bytes] = field(default_factory=dict)
    confirm: bool = True
    store_results: bool = True
    answer_time: bool = True
    now: int = NOW
    seen: tuple[int, int] | None = None
    manifest_serial: int = 1
    on_statement: Callable[[Any], None] = lambda _statement: None
    url: str = ""
    hellos: list[Hello] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    nacks: list[Nack] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    inventories: list[Inventory] = field(default_factory=list)
    results: dict[tuple[bytes, int], Result] = field(default_factory=dict)
    deliveries: int = 0
    reports: dict[bytes, bytes] = field(default_factory=dict)
    connections: int = 0
    closed: list[tuple[int | None, str]] = field(default_factory=list)
    highest: tuple[int, int] = (1, 0)
    _live: "_Live | None" = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    # what a test orders

    async def push(self, *orders: tuple[Command, bytes]) -> None:
        """Queue commands and deliver what the agent wants."""
        for command, envelope in orders:
            self.queue[command.epoch, command.seq] = envelope
        await self.pump()

    async def pump(self) -> None:
        """Send queued commands within the agent's window."""
        if self._live is not None:
            await self._live.pump()

    async def send(self, frame: Any) -> None:
        """Send one frame past the session's rules, as a lying relay would."""
        await self.send_raw(frame_bytes(frame))

    async def send_raw(self, data: bytes) -> None:
        """Send arbitrary bytes."""
        assert self._live is not None
        await self._live.socket.send_bytes(data)

    async def send_command(self, envelope: bytes, *, epoch: int = 1, seq: int = 1) -> None:
        """Send one envelope as a command, whatever it is."""
        await self.send(CommandFrame(epoch=epoch, seq=seq, env=envelope))

    async def send_manifest(self, shown: Manifest) -> None:
        """Sign and send a key manifest."""
        self.manifest_serial = shown.serial
        await self.send(ManifestFrame(env=sign(Kind.MANIFEST, shown, w.ROOT)))

    async def send_epoch(self, order: Epoch) -> None:
        """Sign and send an epoch order; the line begins anew."""
        envelope = sign(Kind.EPOCH, order, w.COMMAND)
        self.line.head = Head(order.to, 0, digest_of(parse_envelope(envelope, limit=MAX_FRAME).p))
        await self.send(EpochFrame(env=envelope))

    async def go_away(self, after: float, spread: float) -> None:
        """Tell the agent to come back later."""
        await self.send(GoingAway(after=after, spread=spread))

    async def drop(self, code: int = CLOSE_SUPERSEDED) -> None:
        """Close the connection."""
        assert self._live is not None
        await self._live.socket.close(code=code)

    @property
    def connected(self) -> bool:
        """Whether an agent has been let in and is still there."""
        return self._live is not None and self._live.welcomed

    # what a test waits for

    async def until(self, wanted: Callable[[], Any], what: str = "") -> None:
        """Return when `wanted` holds; looked at whenever something came."""
        try:
            async with asyncio.timeout(HANG_S):
                while not wanted():
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await self._news.wait()
        except TimeoutError as err:
            raise AssertionError(f"never came: {what or wanted}") from err

    async def result(self, command: Command) -> Result:
        """Wait for a command's result."""
        await self.until(lambda: self.result_of(command), f"result of {command.op} {command.seq}")
        found = self.result_of(command)
        assert found is not None
        return found

    def result_of(self, command: Command) -> Result | None:
        """Return a command's result if it came."""
        return next((r for r in self.results.values() if r.id == command.id), None)

    def numbers(self) -> list[int]:
        """Return the numbers of all results, sorted."""
        return sorted(n for _, n in self.results)

    # the server

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False, heartbeat=20)
        await socket.prepare(request)
        self.connections += 1
        live = _Live(self, socket)
        if self._live is not None:
            await self._live.socket.close(code=CLOSE_SUPERSEDED)
        self._live = live
        try:
            await live.run()
        finally:
            if self._live is live:
                self._live = None
            self._news.set()
        return socket

    def note(self, statement: Any) -> None:
        """Remember a verified statement."""
        self.on_statement(statement)
        match statement:
            case Ack():
                self.acks.append(statement)
                self.highest = max(self.highest, (statement.epoch, statement.have))
            case Nack():
                self.nacks.append(statement)
            case Event():
                self.events.append(statement)
            case Inventory():
                self.inventories.append(statement)
            case Result():
                self.deliveries += 1
                if self.store_results:
                    known = self.results.setdefault((statement.journal, statement.n), statement)
                    assert known == statement, "one number, two results"
        self._news.set()


@dataclass
class _Live:
    """One connection."""

    double: Double
    socket: web.WebSocketResponse
    welcomed: bool = False

    def __post_init__(self) -> None:
        self.session = RelaySession(challenge=os.urandom(32), opened_s=time.monotonic())

    async def run(self) -> None:
        await self._flush()
        async for message in self.socket:
            if message.type is not WSMsgType.BINARY:
                return
            for event in self.session.feed(message.data):
                await self._act(event)
            await self.pump()
        self.double.closed.append((self.socket.close_code, ""))

    async def pump(self) -> None:
        while (wanted := self.session.next_wanted()) is not None:
            envelope = self.double.queue.get(wanted)
            if envelope is None:
                break
            self.session.send_command(CommandFrame(epoch=wanted[0], seq=wanted[1], env=envelope))
        await self._flush()

    async def _act(self, event: RelayEvent) -> None:
        double = self.double
        match event:
            case Claimed():
                for more in self.session.identify(w.DEVICE.public):
                    await self._act(more)
            case Verified():
                await self._verified(event.hello)
            case TimeAsked():
                self._time(event.nonce)
            case Stated():
                double.note(event.statement)
                if isinstance(event.statement, Result):
                    self._take(event.statement, event.report)
            case Close():
                double.closed.append((event.code, event.reason))
                await self._flush()
                await self.socket.close(code=event.code, message=event.reason.encode())

    async def _verified(self, hello: Hello) -> None:
        double = self.double
        double.hellos.append(hello)
        double.highest = max(double.highest, (hello.epoch, hello.have))
        known = 0
        while (hello.journal, known + 1) in double.results:
            known += 1
        through = ResultsThrough(journal=hello.journal, n=known) if known else None
        self.session.welcome(Welcome(generation=double.connections, results=through))
        self.welcomed = True
        self._time(hello.nonce)
        double._news.set()

    def _time(self, nonce: bytes) -> None:
        double = self.double
        if not double.answer_time:
            return
        epoch, seen = double.seen or double.highest
        answer = w.signed_time(
            nonce=nonce,
            now=double.now,
            epoch=epoch,
            seen=seen,
            manifest_serial=double.manifest_serial,
        )
        self.session.send(TimeFrame(env=sign(Kind.TIME, answer, w.TIME)))

    def _take(self, result: Result, report: bytes) -> None:
        double = self.double
        if not double.store_results:
            return
        double.reports[result.id] = report
        through = ResultsThrough(journal=result.journal, n=result.n)
        self.session.send(Stored(results=through))
        if double.confirm:
            receipt = Receipt(
                v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=result.journal, n=result.n
            )
            self.session.send(ReceiptFrame(env=sign(Kind.RECEIPT, receipt, w.COMMAND)))

    async def _flush(self) -> None:
        while self.session.outgoing:
            with contextlib.suppress(ConnectionError):
                await self.socket.send_bytes(self.session.outgoing.popleft())


@asynccontextmanager
async def relay(*, tls: ssl.SSLContext | None = None, **switches: Any) -> AsyncIterator[Double]:
    """Serve a double on a free port."""
    double = Double(**switches)
    app = web.Application()
    app.router.add_get("/v1/channel", double._serve)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    double.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield double
    finally:
        await runner.cleanup()
