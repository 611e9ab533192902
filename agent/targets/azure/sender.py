"""The sender: one blocking HTTP/1.1 request at a time on a kept connection, from worker threads. For page writes only.

aiohttp copies what the socket does not take at once into a buffer of its own, and TLS on asyncio copies three times
more, all on the one loop thread; a blocking `sendall` in a thread copies nothing in Python and releases the GIL
(docs/adr/0003: 20 % less CPU). Never sends anything again by itself, follows no redirect, reads no environment.
"""

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from agent.targets.azure.http import CONNECT_S, IDLE_S, TOTAL_S, HttpSettings
from agent.threads import Pool, run_blocking

PIECE = 1024 * 1024
"""Bytes sent between two looks at the clock."""
ANSWER_AFTER_BREAK_S = 1.0
MAX_BODY = 64 * 1024
"""Bytes of an answer that are read: page writes answer with nothing, refusals with a short XML."""


class TooSlow(TimeoutError):
    """The request as a whole took longer than it may."""


class ProxyRefusal(Exception):
    """The proxy answered CONNECT with something else than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the proxy answered {status} {reason}")
        self.status = status
        self.reason = reason


class Stopped(OSError):
    """The request was stopped from outside."""


SEND_ERRORS = (OSError, http.client.HTTPException, ProxyRefusal)
"""What `send` raises when it got no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names as they came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it was not connected yet, or is gone already


class AsyncSender:
    """A `Sender` for the event loop: each request runs in a thread of a pool of its own."""

    def __init__(self, settings: HttpSettings, *, at_once: int) -> None:
        self._sender = Sender(settings)
        self._pool = Pool("azure-put", at_once)

    async def put(self, url: str, headers: Mapping[str, str], body: memoryview) -> Answer:
        """See `Sender.put`. Cancelling shuts the socket down and returns when the thread has left the buffer."""
        stop = StopFlag()
        return await run_blocking(
            self._pool, lambda: self._sender.put(url, headers, body, stop=stop), stop=stop
        )

    def close(self) -> None:
        """Close connections and threads."""
        self._sender.close()
        self._pool.close()


@dataclass(slots=True)
class Sender:
    """Connections to one service, kept and reused by any number of threads.

    Attributes:
        settings: Proxy and trust.
    """

    settings: HttpSettings
    _idle: list[http.client.HTTPConnection] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tls: ssl.SSLContext | None = None

    def put(
        self, url: str, headers: Mapping[str, str], body: memoryview, *, stop: StopFlag
    ) -> Answer:
        """Send one PUT and return its answer. Blocking.

        Raises:
            SEND_ERRORS: No whole answer came; whether the service did it is unknown.
        """
        parts = urlsplit(url)
        connection = self._take(parts)
        try:
            answer, keep = self._exchange(connection, parts, headers, body, stop)
        except BaseException:
            connection.close()
            raise
        if keep:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        parts: SplitResult,
        headers: Mapping[str, str],
        body: memoryview,
        stop: StopFlag,
    ) -> tuple[Answer, bool]:
        deadline = time.monotonic() + TOTAL_S
        if connection.sock is None:
            self._connect(connection, parts, stop)
        stop.watch(connection.sock)
        try:
            broken = self._write(connection, parts, headers, body, deadline)
            response = connection.getresponse()
            text = response.read(MAX_BODY + 1)
        finally:
            stop.watch(None)
        if broken is not None and response.status < http.client.BAD_REQUEST:
            raise broken  # success for a body that was not sent is none
        keep = broken is None and not response.will_close and response.isclosed()
        return Answer(response.status, dict(response.getheaders()), text[:MAX_BODY]), keep

    def _write(
        self,
        connection: http.client.HTTPConnection,
        parts: SplitResult,
        headers: Mapping[str, str],
        body: memoryview,
        deadline: float,
    ) -> OSError | None:
        """Send the request; return the error if the service stopped to read, for it may have answered before that."""
        self._write_head(connection, parts, headers, len(body))
        try:
            for start in range(0, len(body), PIECE):
                if time.monotonic() > deadline:
                    msg = f"the request took more than {TOTAL_S:.0f} s"
                    raise TooSlow(msg)
                connection.send(body[start : start + PIECE])
        except (BrokenPipeError, ConnectionResetError) as err:
            if connection.sock is None:
                raise
            connection.sock.settimeout(ANSWER_AFTER_BREAK_S)
            return err
        return None

    def _write_head(
        self,
        connection: http.client.HTTPConnection,
        parts: SplitResult,
        headers: Mapping[str, str],
        length: int,
    ) -> None:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        through_proxy = self.settings.proxy and parts.scheme == "http"
        if through_proxy:
            target = f"http://{parts.netloc}{target}"
        connection.putrequest("PUT", target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", parts.netloc)
        connection.putheader("Content-Length", str(length))
        connection.putheader("Content-Type", "application/octet-stream")
        if through_proxy and self.settings.proxy_auth:
            connection.putheader("Proxy-Authorization", basic(self.settings.proxy_auth))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()

    # --- connections --------------------------------------------------------------------------------------

    def _take(self, parts: SplitResult) -> http.client.HTTPConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        host = parts.hostname or ""
        return http.client.HTTPConnection(host, parts.port or _port(parts), timeout=IDLE_S)

    def _connect(
        self, connection: http.client.HTTPConnection, parts: SplitResult, stop: StopFlag
    ) -> None:
        host, port = parts.hostname or "", parts.port or _port(parts)
        first = urlsplit(self.settings.proxy) if self.settings.proxy else None
        where = (first.hostname or "", first.port or 3128) if first else (host, port)
        sock = socket.create_connection(where, timeout=CONNECT_S)
        try:
            stop.watch(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                if first is not None:
                    self._tunnel(sock, host, port)
                sock = self._context().wrap_socket(sock, server_hostname=host)
            sock.settimeout(IDLE_S)
        except BaseException:
            sock.close()
            raise
        connection.sock = sock

    def _tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Ask an HTTP proxy for a way through (RFC 9110 9.3.6)."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if self.settings.proxy_auth:
            lines.append(f"Proxy-Authorization: {basic(self.settings.proxy_auth)}")
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        with closing(http.client.HTTPResponse(sock, method="CONNECT")) as response:
            response.begin()
            if response.status != http.client.OK:
                raise ProxyRefusal(response.status, response.reason)

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = self.settings.tls()
            return self._tls


def basic(user_and_password: str) -> str:
    """Return the value of a Basic authorisation header."""
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()


def _port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80
