"""Takes the connections of one port and looks after them until they end. What each may do is `relay.wire`'s business.

Accepts by itself instead of `asyncio.Server`, because a connection costs a file descriptor from its accept on: one that
never ends its TLS handshake would be seen by nobody.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from relay.lobby import Lobby
from relay.wire import STRANGER_S, UNREAD_S, Wire

HANDSHAKE_S = 10.0
SHUTDOWN_S = 5.0
"""Of a TLS connection: how long its other side has for its goodbye."""
SWEEP_S = 1.0
BACKLOG = 4096
"""Connections that the kernel holds for us: 10,000 agents may come back at once."""
FULL_PAUSE_S = 0.1
LINES_A_SWEEP = 20
"""Refused requests that are logged one by one: nobody can fill the disk with them."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Door:
    """All connections of one port.

    Attributes:
        lobby: Who did not prove yet who he is.
        stranger_s: How long somebody may stay so.
        cut: Hears the reason of every connection that was ended from here.
    """

    lobby: Lobby
    stranger_s: float = STRANGER_S
    clock: Callable[[], float] = time.monotonic
    cut: Callable[[str], None] = lambda _reason: None
    _wires: dict[Wire, None] = field(default_factory=dict)
    _ports: list[socket.socket] = field(default_factory=list)
    _taking: list[asyncio.Task[None]] = field(default_factory=list)
    _told: Counter[str] = field(default_factory=Counter)
    _refused: int = 0

    @contextlib.asynccontextmanager
    async def open(
        self, ports: list[socket.socket], server: web.Server, tls: ssl.SSLContext | None
    ) -> AsyncIterator[None]:
        """Take connections until `stop` or the context's end; those that were taken stay with `server`."""
        failed: Exception | None = None
        async with asyncio.TaskGroup() as group:
            sweeper = group.create_task(self._sweep())
            self._ports = ports
            self._taking = [group.create_task(self._take(port, server, tls)) for port in ports]
            try:
                yield
            except Exception as err:  # noqa: BLE001  # a TaskGroup would wrap it; nothing is swallowed
                failed = err
            finally:
                await self.stop()
                sweeper.cancel()
        if failed is not None:
            raise failed

    async def stop(self) -> None:
        """Take no connection any more, and go on looking after those inside; again does nothing."""
        for task in self._taking:
            task.cancel()
        if self._taking:
            await asyncio.wait(self._taking)
        for port in self._ports:
            port.close()

    def sweep(self) -> None:
        """End what takes too long, and say in one line a reason what was ended since the last time."""
        now = self.clock()
        for wire in tuple(self._wires):
            wire.check(now)
        for reason, count in self._told.items():
            log.warning("connections cut", reason=reason, count=count)
        if self._refused > LINES_A_SWEEP:
            log.warning("more bad requests", count=self._refused - LINES_A_SWEEP)
        self._told.clear()
        self._refused = 0

    # --- what connections say ---

    def vouched(self, wire: Wire) -> None:
        """See Keeper."""
        if wire.stranger is not None:
            self.lobby.leave(wire.stranger)
            wire.stranger = None

    def gone(self, wire: Wire) -> None:
        """See Keeper."""
        self.vouched(wire)
        self._wires.pop(wire, None)

    def was_cut(self, reason: str) -> None:
        """See Keeper."""
        self._told[reason] += 1
        self.cut(reason)

    def refused(self, address: str, code: str) -> None:
        """See Keeper."""
        self._refused += 1
        if self._refused <= LINES_A_SWEEP:
            log.warning("bad request", peer=address, code=code)

    # --- taking ---

    async def _take(
        self, listening: socket.socket, server: web.Server, tls: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    sock, peer = await loop.sock_accept(listening)
                except ConnectionError:  # it went before we took it
                    continue
                except (
                    OSError
                ):  # no file descriptor or memory is left: those who end give some back
                    self.was_cut("no-descriptor")
                    self.lobby.make_room()
                    await asyncio.sleep(FULL_PAUSE_S)
                    continue
                wire = self._enter(sock, str(peer[0]), server)
                group.create_task(self._greet(wire, sock, tls))
                await asyncio.sleep(0)  # a crowd at the door must not starve those inside

    def _enter(self, sock: socket.socket, address: str, server: web.Server) -> Wire:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
        wire = Wire(server, self, sock, address, loop=asyncio.get_running_loop())
        wire.stranger = self.lobby.enter(address, wire.cut)
        self._wires[wire] = None
        return wire

    async def _greet(self, wire: Wire, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Bring a connection up."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: wire,
                sock,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
                ssl_shutdown_timeout=None if tls is None else SHUTDOWN_S,
            )
        except (OSError, TimeoutError) as err:  # ssl.SSLError is one
            log.debug("handshake failed", peer=wire.address, error=type(err).__name__)
        finally:
            if not wire.made:
                self.gone(wire)
                sock.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()


def listen(host: str, port: int) -> list[socket.socket]:
    """Open a port on every address of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    with contextlib.ExitStack() as stack:
        ports = []
        for family, address in addresses:
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.settimeout(0)
            sock.bind(address)
            sock.listen(BACKLOG)
            ports.append(sock)
        stack.pop_all()
    return ports
