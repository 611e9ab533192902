"""The wire of the page sender: one TCP or TLS connection, its set-up and its clock. Blocking, for one thread at a time.

Every operation is bounded twice: by `IDLE_S` (or `CONNECT_S`), and by what is left of the request's total time.
"""

import base64
import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.targets.http.answer import AnswerReader, is_interim
from agent.targets.http.settings import CONNECT_S, IDLE_S, TOTAL_S

RECEIVE = 16 * 1024
_HTTPS = "https"
_BLOCKED = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


class TooSlow(TimeoutError):
    """The request as a whole took longer than it may."""


class ProxyRefusal(Exception):
    """The proxy answered CONNECT with something else than success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the proxy answered {status} {reason}")
        self.status = status
        self.reason = reason


class Stopped(OSError):
    """The request was stopped from outside."""


class StopFlag(threading.Event):
    """Set from another thread to end one request now: its socket is shut down under it."""

    def __init__(self) -> None:
        super().__init__()
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def watch(self, sock: socket.socket | None) -> None:
        """Name the socket of the running request; raises Stopped if it is too late."""
        with self._lock:
            self._socket = sock
            if self.is_set():
                raise Stopped("stopped")

    def set(self) -> None:
        """Stop."""
        with self._lock:
            super().set()
            if self._socket is not None:
                # Not SSLSocket.shutdown: that one drops the TLS layer first, and a thread that is just sending
                # would go on in plain text.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Origin(NamedTuple):
    """Where requests go; kept connections belong to one."""

    scheme: str
    host: str
    port: int


@dataclass(slots=True)
class Clock:
    """What is left of one request's total time."""

    deadline: float = field(default_factory=lambda: time.monotonic() + TOTAL_S)

    def bound(self, seconds: float) -> float:
        """Return at most `seconds`; raises TooSlow if nothing is left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            msg = f"the request took more than {TOTAL_S:.0f} s"
            raise TooSlow(msg)
        return min(seconds, left)

    @contextlib.contextmanager
    def over(self, sock: socket.socket, seconds: float) -> Iterator[None]:
        """Bound what is done with `sock`; a time-out at the very end of the total time is TooSlow."""
        sock.settimeout(self.bound(seconds))
        try:
            yield
        except TimeoutError:
            self.bound(seconds)
            raise


@dataclass(slots=True)
class Wire:
    """One connection.

    Attributes:
        sock: Connected, with TLS if the origin wants it.
        origin: To whom.
    """

    sock: socket.socket
    origin: Origin

    def send(self, head: bytes, body: memoryview, clock: Clock) -> bytes | None:
        """Send a request; None: all of it, else what the service said before it had everything (b"": it hung up).

        The socket is asked before it is waited for: one call a megabyte or so, and an early answer ends the waiting.
        """
        self.sock.settimeout(0)
        for part in (memoryview(head), body):
            done = 0
            while done < len(part):
                try:
                    done += self.sock.send(part[done:])
                except _BLOCKED as blocked:
                    early = self._wait(blocked, clock)
                    if early is not None and not is_interim(early):
                        return early
        return None

    def _wait(self, blocked: OSError, clock: Clock) -> bytes | None:
        """Wait for room, or for what TLS has to read first: there is room all the time then, and no use for it."""
        wants_read = isinstance(blocked, ssl.SSLWantReadError)
        wanted = select.POLLIN if wants_read else select.POLLIN | select.POLLOUT
        events = _poll(self.sock, wanted, clock.bound(IDLE_S))
        if not events:
            clock.bound(IDLE_S)
            raise TimeoutError(errno.ETIMEDOUT, "nothing was taken in time")
        return self.early() if events & select.POLLIN else None

    def receive(self, clock: Clock, seconds: float = IDLE_S) -> bytes:
        """Return some bytes, b"" at the end."""
        with clock.over(self.sock, seconds):
            return self.sock.recv(RECEIVE)

    def early(self) -> bytes | None:
        """Return what came without being asked for (b"": the end), None if nothing did. Never waits."""
        if not _poll(self.sock, select.POLLIN, 0):
            return None
        self.sock.settimeout(0)
        try:
            return self.sock.recv(RECEIVE)
        except _BLOCKED:
            return None  # TLS's own records: session tickets come behind the handshake, new keys want an answer

    def is_usable(self) -> bool:
        """Look whether a kept connection is still open and silent."""
        try:
            return self.early() is None
        except OSError:
            return False

    def close(self) -> None:
        """Close."""
        self.sock.close()


def _poll(sock: socket.socket, events: int, seconds: float) -> int:
    """Return which of the events (or errors, which the next call raises) came in time."""
    poll = select.poll()
    poll.register(sock, events)
    return next((found for _, found in poll.poll(seconds * 1000)), 0)


@dataclass(frozen=True, slots=True)
class Route:
    """How to get to an origin.

    Attributes:
        origin: Where requests go.
        proxy: HTTP proxy on the way, None for none.
        proxy_auth: `user:password` for it.
        context: Makes the TLS context; asked only if the origin is https.
    """

    origin: Origin
    proxy: Origin | None
    proxy_auth: str | None = field(repr=False)
    context: Callable[[], ssl.SSLContext] = field(repr=False)


def dial(route: Route, clock: Clock, stop: StopFlag) -> Wire:
    """Connect, through the proxy if there is one, and set up TLS."""
    sock = _connect(route.proxy or route.origin, clock, stop)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if route.origin.scheme == _HTTPS:
            if route.proxy is not None:
                _tunnel(Wire(sock, route.proxy), route, clock)
            sock = route.context().wrap_socket(
                sock, server_hostname=route.origin.host, do_handshake_on_connect=False
            )
            stop.watch(sock)  # wrapping detached the one that was watched
            with clock.over(sock, CONNECT_S):
                sock.do_handshake()
    except BaseException:
        sock.close()
        raise
    return Wire(sock, route.origin)


def _connect(where: Origin, clock: Clock, stop: StopFlag) -> socket.socket:
    """Try every address; each socket is watched before it waits, so that a stop ends it; a lookup nothing ends."""
    stop.watch(None)
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
    except UnicodeError as err:  # a label of no or too many letters
        raise socket.gaierror(socket.EAI_NONAME, "the host's name cannot be looked up") from err
    failed: OSError = OSError("the host has no address")
    for family, kind, number, _, address in found:
        sock = socket.socket(family, kind, number)
        try:
            _begin_and_wait(sock, address, clock, stop)
        except (Stopped, TooSlow):
            sock.close()
            raise
        except OSError as err:
            sock.close()
            failed = err
        else:
            return sock
    raise failed


def _begin_and_wait(
    sock: socket.socket, address: tuple[Any, ...], clock: Clock, stop: StopFlag
) -> None:
    """Connect. The stop flag gets the socket once it is connecting: before that, a shutdown would do nothing."""
    sock.settimeout(0)
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, os.strerror(code))
    stop.watch(sock)
    if not _poll(sock, select.POLLOUT, clock.bound(CONNECT_S)):
        clock.bound(CONNECT_S)
        raise TimeoutError(errno.ETIMEDOUT, "no connection in time")
    stop.watch(sock)
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


def _tunnel(wire: Wire, route: Route, clock: Clock) -> None:
    """Ask an HTTP proxy for a way through (RFC 9110 9.3.6)."""
    host = route.origin.host
    place = f"[{host}]:{route.origin.port}" if ":" in host else f"{host}:{route.origin.port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if route.proxy_auth:
        lines.append(f"Proxy-Authorization: {basic(route.proxy_auth)}")
    wire.send("\r\n".join([*lines, "", ""]).encode("ascii"), memoryview(b""), clock)
    reader = AnswerReader(lambda: wire.receive(clock, CONNECT_S))
    answer = reader.read(connect=True)
    if not answer.is_success:
        raise ProxyRefusal(answer.status, answer.reason)


def basic(user_and_password: str) -> str:
    """Return the value of a Basic authorisation header."""
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()
