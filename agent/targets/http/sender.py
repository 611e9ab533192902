"""The sender: one blocking HTTP/1.1 request at a time on a kept connection, from worker threads. For page writes only.

aiohttp copies what the socket does not take at once into a buffer of its own, and TLS on asyncio copies three times
more, all on the one loop thread; a blocking `sendall` in a thread copies nothing in Python and releases the GIL
(docs/adr/0003). Never sends anything again by itself, follows no redirect, reads no environment.
"""

import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from agent.targets.http.answer import Answer, AnswerReader, BadAnswer
from agent.targets.http.settings import HttpSettings
from agent.targets.http.wire import (
    Clock,
    Origin,
    ProxyRefusal,
    Route,
    StopFlag,
    TooSlow,
    Wire,
    basic,
    dial,
)
from agent.whereabouts import At, now

__all__ = [
    "SEND_ERRORS",
    "Answer",
    "BadRequest",
    "ProxyRefusal",
    "Sender",
    "StopFlag",
    "TooSlow",
]

ANSWER_AFTER_BREAK_S = 1.0
REFUSAL = 400
_PORTS = {"http": 80, "https": 443}
_PROXY_PORT = 3128


class BadRequest(Exception):
    """An address or a header that cannot be sent as it is."""


SEND_ERRORS = (OSError, BadAnswer, BadRequest, ProxyRefusal)
"""What `put` raises when it got no answer."""


@dataclass(slots=True)
class Sender:
    """Connections, kept and reused by any number of threads; the last one used is the next one taken.

    Attributes:
        settings: Proxy and trust.
    """

    settings: HttpSettings
    _idle: dict[Origin, list[Wire]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tls: ssl.SSLContext | None = None

    def put(
        self, url: str, headers: Mapping[str, str], body: memoryview, *, stop: StopFlag
    ) -> Answer:
        """Send one PUT and return its answer. Blocking.

        Raises:
            SEND_ERRORS: No whole answer came; whether the service did it is unknown.
        """
        now(At.SENDING)
        clock = Clock()
        parts = urlsplit(url)
        origin = _origin_of(parts)
        head = self._head(parts, headers, len(body))
        wire = self._take(origin) or self._dial(origin, clock, stop)
        try:
            stop.watch(wire.sock)
            try:
                answer, keep = _exchange(wire, head, body, clock)
            finally:
                stop.watch(None)
        except BaseException:
            wire.close()
            raise
        if keep:
            with self._lock:
                self._idle.setdefault(origin, []).append(wire)
        else:
            wire.close()
        return answer

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            for wires in self._idle.values():
                for wire in wires:
                    wire.close()
            self._idle.clear()

    def _head(self, parts: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        through_proxy = self.settings.proxy and parts.scheme == "http"
        if through_proxy:
            target = f"http://{parts.netloc}{target}"
        lines = [
            f"PUT {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Content-Length: {length}",
            "Content-Type: application/octet-stream",
        ]
        if through_proxy and self.settings.proxy_auth:
            lines.append(f"Proxy-Authorization: {basic(self.settings.proxy_auth)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        for line in lines:
            _check(line)
        if lines[0].count(" ") != 2:
            raise BadRequest("the address holds a space")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _take(self, origin: Origin) -> Wire | None:
        """Return the last kept connection that still stands."""
        while True:
            with self._lock:
                wires = self._idle.get(origin)
                if not wires:
                    return None
                wire = wires.pop()
            if wire.is_usable():
                return wire
            wire.close()

    def _dial(self, origin: Origin, clock: Clock, stop: StopFlag) -> Wire:
        proxy = None
        if self.settings.proxy:
            first = urlsplit(self.settings.proxy)
            proxy = Origin("http", first.hostname or "", first.port or _PROXY_PORT)
        return dial(Route(origin, proxy, self.settings.proxy_auth, self._context), clock, stop)

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = self.settings.tls()
            return self._tls


def _origin_of(parts: SplitResult) -> Origin:
    try:
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        raise BadRequest("the address cannot be used: expected http or https and a port") from None
    return Origin(parts.scheme, parts.hostname or "", port)


def _check(line: str) -> None:
    """Raise BadRequest for a line that would end early or not be ASCII; its value may be a secret and is not shown."""
    if not (line.isascii() and line.isprintable()):
        what = (
            "the address" if line.startswith("PUT ") else f"header {line.partition(':')[0][:40]!r}"
        )
        msg = f"{what} holds a character that HTTP does not allow"
        raise BadRequest(msg)


def _exchange(wire: Wire, head: bytes, body: memoryview, clock: Clock) -> tuple[Answer, bool]:
    """Return (answer, whether the connection may be used again)."""
    try:
        early = wire.send(head, body, clock)
    except TooSlow:
        raise
    except (BrokenPipeError, ConnectionResetError, TimeoutError) as err:
        return _reason(wire, b"", clock, err), False
    if early is not None:
        hung_up = ConnectionResetError("the service ended the request before it had all of it")
        return _reason(wire, early, clock, hung_up), False
    now(At.ANSWER, wire.sock.fileno())
    reader = AnswerReader(lambda: wire.receive(clock))
    answer = reader.read()
    return answer, reader.keep


def _reason(wire: Wire, early: bytes, clock: Clock, broken: OSError) -> Answer:
    """Return why the service did not take the whole body; raises `broken` unless it said so.

    A success for a body that was not sent is none.
    """
    reader = AnswerReader(lambda: wire.receive(clock, ANSWER_AFTER_BREAK_S), begun=early)
    try:
        answer = reader.read()
    except (BadAnswer, OSError):
        raise broken from None
    if answer.status < REFUSAL:
        raise broken
    return answer
