"""The control channel: the signer dials the relay, keeps one websocket, and comes back with full jitter when it breaks.

Reads frames and feeds them to the database in their order; sends what the outbox holds. Decides nothing: what
a statement means is `relay.signer.statements`, what is pushed `relay.signer.outbox`.
"""

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
import structlog

from protocol.control import (
    MAX_CONTROL_FRAME,
    Attach,
    Attached,
    Call,
    Push,
    Pushed,
    Quarantined,
    Reply,
    Statement,
    TimeWanted,
    parse_to_signer,
)
from protocol.errors import FrameError
from protocol.frames import CLOSE_PROTOCOL, frame_bytes
from relay.signer.authority import Effects, Outgoing
from relay.signer.errors import SignerError, Unavailable
from relay.signer.http import Request, Response
from relay.signer.loading import load_batch, load_heads
from relay.signer.outbox import Outbox
from relay.signer.service import Service
from relay.signer.statements import answer_time, hear

log = structlog.get_logger(__name__)

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
STEADY_S = 10.0
"""A connection that lasted so long was a good one: the next attempt is at once again."""
HEARTBEAT_S = 20.0
ATTACH_S = 20.0
HOLD_S = 5.0
"""A refused push is tried again after this; an appliance that takes commands releases its own at once."""
COMPARE_S = 60.0
"""How often everything that no appliance acknowledged is offered again."""
PIPELINE = 256
"""Frames that wait for the database; then the socket is not read."""

Work: TypeAlias = "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class Dial:
    """Where the relay is and how it is reached."""

    url: str
    token: Callable[[], str]
    tls: ssl.SSLContext | None


def backoff_s(attempt: int, *, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Return how long to wait before attempt n (from 0): full jitter, base 0.5 s, cap 30 s."""
    return uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(attempt, 16)))


class Channel:
    """The connection to the relay, over and over, until it is cancelled."""

    def __init__(self, dial: Dial, service: Service) -> None:
        self._dial = dial
        self._service = service

    async def run(self) -> None:
        """Connect, serve, wait, again; ends by cancellation only."""
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                await self._connect()
                log.info("relay closed the control channel")
            except* (OSError, aiohttp.ClientError, TimeoutError, FrameError, SignerError) as group:
                log.warning("control channel broke", error=_first(group))
            attempt = 0 if loop.time() - began > STEADY_S else attempt + 1
            await asyncio.sleep(backoff_s(attempt))

    async def _connect(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        url = self._dial.url.rstrip("/") + "/v1/control"
        tls = True if self._dial.tls is None else self._dial.tls
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.ws_connect(
                url, ssl=tls, heartbeat=HEARTBEAT_S, max_msg_size=MAX_CONTROL_FRAME
            ) as socket,
        ):
            await Session(socket, self._dial.token(), self._service).run()


class Session:
    """One attachment: a reader, a finisher that applies what the database answered, and a pusher."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, token: str, service: Service
    ) -> None:
        self._socket = socket
        self._token = token
        self._service = service
        self._db = service.database
        self._authority = service.authority
        self._outbox = Outbox()
        self._wake = asyncio.Event()
        self._pipeline: asyncio.Queue[tuple[object, Work]] = asyncio.Queue(PIPELINE)

    async def run(self) -> None:
        """Attach and serve until the socket ends."""
        await self._attach()
        self._service.subscribe(self._apply)
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._finish()),
                    group.create_task(self._push()),
                    group.create_task(self._release()),
                    group.create_task(self._compare()),
                ]
                await self._read()
                for task in helpers:
                    task.cancel()
        finally:
            self._service.unsubscribe()
            while not self._pipeline.empty():
                self._pipeline.get_nowait()[1].add_done_callback(_forget)

    async def _attach(self) -> None:
        ours = await self._db.run(load_heads)
        await self._socket.send_bytes(frame_bytes(Attach(token=self._token, appliances=ours.heads)))
        async with asyncio.timeout(ATTACH_S):
            message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            msg = f"the relay did not attach us: {message.extra or message.data}"
            raise Unavailable(msg)
        answer = parse_to_signer(message.data)
        if not isinstance(answer, Attached):
            await self._socket.close(code=CLOSE_PROTOCOL)
            raise Unavailable("the relay's first frame was not `attached`")
        self._outbox.attached(ours.heads, ours.seen, answer.appliances)
        self._service.receipts_again(head.appliance for head in ours.heads)
        self._wake.set()
        log.info("attached to the relay", appliances=len(ours.heads))

    # --- in ---

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                return
            frame = parse_to_signer(message.data)
            match frame:
                case Statement():
                    await self._submit(frame, self._hear(frame))
                case TimeWanted():
                    await self._submit(frame, self._time(frame))
                case Call():
                    await self._submit(frame, self._call(frame))
                case Pushed():
                    self._pushed(frame)
                case Quarantined():
                    # The relay's own word; the appliance's signed nack is what counts.
                    log.warning("relay quarantined an envelope", appliance=frame.appliance)
                case Attached():
                    log.warning("relay attached us twice")

    async def _submit(self, frame: object, work: Work) -> None:
        await self._pipeline.put((frame, work))

    def _hear(self, frame: Statement) -> Work:
        return self._db.submit(lambda conn: hear(conn, self._authority, frame))

    def _time(self, frame: TimeWanted) -> Work:
        return self._db.submit(
            lambda conn: answer_time(
                conn,
                self._authority,
                tenant=frame.tenant,
                appliance=frame.appliance,
                nonce=frame.nonce,
            )
        )

    def _call(self, frame: Call) -> Work:
        headers = {name.lower(): value for name, value in frame.headers.items()}
        request = Request(frame.method.upper(), frame.path, headers, frame.body, "relay")
        return self._service.submit(request)

    async def _finish(self) -> None:
        while True:
            frame, work = await self._pipeline.get()
            match frame:
                case Call():
                    response = await self._service.outcome(work)
                    # First what the answer lets others rely on: an appliance that was just enrolled dials at once.
                    await self._send_urgent()
                    await self._reply(frame, response)
                case _:
                    await self._absorb(frame, work)

    async def _absorb(self, frame: object, work: Work) -> None:
        try:
            done = await work
        except SignerError as err:
            log.warning("statement not believed", code=err.code, error=str(err), **_place(frame))
            return
        if isinstance(done, Outgoing):
            self._apply(Effects(outgoing=[done]))
        elif isinstance(done, Effects):
            self._service.spread(done)

    async def _reply(self, frame: Call, response: Response) -> None:
        reply = Reply(
            call=frame.call,
            status=response.status,
            headers=dict(response.headers),
            body=response.body,
        )
        await self._socket.send_bytes(frame_bytes(reply))

    def _pushed(self, frame: Pushed) -> None:
        sent = self._outbox.answered(frame.push, frame.code)
        if frame.code and sent is not None:
            log.warning(
                "push refused",
                kind=sent.item.kind,
                appliance=sent.item.appliance,
                seq=sent.seq,
                code=frame.code,
                detail=frame.detail,
            )
        self._wake.set()

    # --- out ---

    def _apply(self, effects: Effects) -> None:
        self._outbox.apply(effects)
        self._wake.set()

    async def _push(self) -> None:
        outbox = self._outbox
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send_urgent()
            while not outbox.urgent and outbox.room and (name := outbox.next_appliance()):
                await self._push_appliance(name)
            if outbox.urgent:
                self._wake.set()

    async def _send_urgent(self) -> None:
        while self._outbox.urgent:
            await self._send(self._outbox.urgent.popleft())

    async def _push_appliance(self, name: str) -> None:
        outbox = self._outbox
        cursor, room = outbox.begin(name), outbox.room
        batch = await self._db.run(
            lambda conn: load_batch(conn, self._authority, name, cursor, limit=room)
        )
        outbox.loaded(name, cursor, epoch=batch.epoch, next_seq=batch.next_seq, more=batch.more)
        for item, seq in batch.items:
            await self._send(item, epoch=batch.epoch, seq=seq)

    async def _send(self, item: Outgoing, *, epoch: int = 0, seq: int = 0) -> None:
        number = self._outbox.sent(item, epoch=epoch, seq=seq)
        push = Push(
            push=number,
            kind=item.kind,  # type: ignore[arg-type]  # one of the six that this package signs
            tenant=item.tenant,
            appliance=item.appliance,
            env=item.env,
        )
        await self._socket.send_bytes(frame_bytes(push))

    async def _release(self) -> None:
        while True:
            await asyncio.sleep(HOLD_S)
            self._outbox.release()
            self._wake.set()

    async def _compare(self) -> None:
        while True:
            await asyncio.sleep(COMPARE_S)
            ours = await self._db.run(load_heads)
            self._outbox.compare(ours.heads, ours.seen)
            self._wake.set()


def _place(frame: object) -> dict[str, str]:
    if isinstance(frame, Statement | TimeWanted):
        return {"tenant": frame.tenant, "appliance": frame.appliance}
    return {}


def _forget(work: Work) -> None:
    if not work.cancelled():
        work.exception()


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    err: BaseException = group
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    return f"{type(err).__name__}: {err}"
