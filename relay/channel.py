"""`GET /v1/channel`: one agent's websocket. Moves bytes; what they mean is `relay.desk`'s business.

Three tasks a connection:

| task | does | blocks on |
|---|---|---|
| receive | socket -> inbox | a full inbox, at most OVERLOAD_S: aiohttp answers no ping while nobody receives |
| work | inbox -> session -> desk; the only one that touches the session | the store |
| send | session.outgoing -> socket | a slow agent |

Memory of a verified connection: 8 MiB of inbox and one message, 2 MiB ahead of the socket.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from protocol.frames import CLOSE_PROTOCOL, MAX_FRAME, GoingAway
from protocol.relay_session import RelaySession, RelayState
from relay.desk import Desk, Shared
from relay.errors import Busy
from relay.lobby import Lobby, Stranger
from relay.mailbox import Mailbox
from relay.wire import allow, cut, vouch

HEARTBEAT_S = 20.0
"""Proxies cut idle connections after 30 s and more; a silent partition shows after 1.5 heartbeats."""
OVERLOAD_S = 5.0
"""Below the 10 s that aiohttp gives a pong."""
INBOX_ITEMS = 256
INBOX_BYTES = 8 * 1024 * 1024
CLEANUP_S = 5.0
UNVERIFIED_BYTES = 128 * 1024
"""What a connection may send before it is verified: a hello of at most 64 KiB, and little behind it."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Channel:
    """The door for agents: takes connections, counts those that did not prove yet who they are."""

    shared: Shared
    boot_s: Callable[[], float]
    max_unverified: int
    _going: GoingAway | None = None
    _waiting: Lobby = field(init=False)

    def __post_init__(self) -> None:
        self._waiting = Lobby(self.max_unverified, 0)

    @property
    def unverified(self) -> int:
        """Connections without a hello."""
        return len(self._waiting)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Run one connection to its end."""
        if self._going is not None:
            raise Busy("the relay takes no new agent connection at the moment", retry_after=5)
        # As at the door: a flood pushes itself out, not the agent that is about to say hello.
        stranger = self._waiting.enter(request.remote or "", lambda why: cut(request, why))
        self.shared.metrics.unverified.inc()
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_FRAME, compress=False
        )
        allow(request, UNVERIFIED_BYTES)
        connection = Connection(self, socket, lambda: vouch(request), stranger)
        try:
            await socket.prepare(request)
            await connection.run()
        finally:
            connection.count()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLEANUP_S):
                    await connection.desk.leave()
            self.shared.metrics.connected.set(len(self.shared.agents))
        return socket

    def verified(self, stranger: Stranger) -> None:
        """Count one unverified connection less."""
        self._waiting.leave(stranger)
        self.shared.metrics.unverified.dec()
        self.shared.metrics.connected.set(len(self.shared.agents))

    def go_away(self, *, after: float, spread: float) -> None:
        """Tell every agent to come back later, and take nobody new."""
        self._going = GoingAway(after=after, spread=spread)
        for link in self.shared.agents:
            link.offer(self._going)


@dataclass(slots=True, eq=False)
class Connection:
    """One websocket and its three tasks."""

    channel: Channel
    socket: web.WebSocketResponse
    vouch: Callable[[], None]
    stranger: Stranger
    inbox: Mailbox = field(default_factory=lambda: Mailbox(INBOX_ITEMS, INBOX_BYTES))
    session: RelaySession = field(init=False)
    desk: Desk = field(init=False)
    _sending: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: tuple[int, str] | None = None
    _counted: bool = True

    def __post_init__(self) -> None:
        self.session = RelaySession(challenge=os.urandom(32), opened_s=self.channel.boot_s())
        self.desk = Desk(self.channel.shared, self.session, self.end, self.inbox.due.set)
        self._sending.set()

    async def run(self) -> None:
        """Move bytes until one side ends it."""
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send())
            worker = group.create_task(self._work())
            await self._receive()
            self.end(WSCloseCode.OK, "closed by the agent")
            await worker
            sender.cancel()

    def end(self, code: int, reason: str) -> None:
        """End the connection; the first reason counts."""
        if self._ended is None:
            self._ended = (code, reason)
        self.inbox.due.set()

    def count(self) -> None:
        """Stop to count as unverified, once."""
        if self._counted:
            self._counted = False
            self.channel.verified(self.stranger)

    async def _receive(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return
            if self._ended is not None:
                continue  # read on for the close frame only
            if message.type is WSMsgType.TEXT:
                self.end(CLOSE_PROTOCOL, "protocol.malformed")
            elif self.session.state is not RelayState.OPEN and len(message.data) > UNVERIFIED_BYTES:
                self.end(CLOSE_PROTOCOL, "protocol.oversized")
            elif not await self.inbox.put(message.data, seconds=OVERLOAD_S):
                self.end(WSCloseCode.TRY_AGAIN_LATER, "relay.overload")

    async def _work(self) -> None:
        try:
            while self._ended is None:
                await self._wait()
                while self.inbox and self._ended is None:
                    for event in self.session.feed(self.inbox.take()):
                        await self.desk.act(event)
                    if self.session.state is RelayState.OPEN and self._counted:
                        self.vouch()
                        self.count()
                await self.desk.flush()
                await self.desk.pump()
                if self.session.outgoing:
                    self._sending.set()
        except Exception as err:  # whatever failed ends this connection, not the relay
            code = getattr(err, "code", "relay.internal")
            log.exception("agent connection failed", appliance=self.session.appliance, code=code)
            self.end(WSCloseCode.TRY_AGAIN_LATER, code)
        await self._close()

    async def _wait(self) -> None:
        deadline = self.session.next_deadline()
        left = None if deadline is None else max(deadline - self.channel.boot_s(), 0.0)
        try:
            async with asyncio.timeout(left):
                await self.inbox.due.wait()
        except TimeoutError:
            for event in self.session.timeout(boot_s=self.channel.boot_s()):
                await self.desk.act(event)
        self.inbox.due.clear()

    async def _send(self) -> None:
        while True:
            await self._sending.wait()
            self._sending.clear()
            try:
                while self.session.outgoing:
                    await self.socket.send_bytes(self.session.outgoing.popleft())
                    self.inbox.due.set()  # there is room ahead of the socket again
            except ConnectionError:
                self.end(WSCloseCode.GOING_AWAY, "connection lost")
                return

    async def _close(self) -> None:
        code, reason = self._ended or (WSCloseCode.OK, "")
        self.channel.shared.metrics.closed.labels(reason=reason).inc()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                await self.socket.close(code=code, message=reason.encode())
