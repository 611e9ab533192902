"""One HTTP connection: aiohttp's, with the limits that it lacks. Nobody can hold it, and garbage is answered in form.

| what | limit | then |
|---|---|---|
| a request's head, from its first byte (or the connection's start) | HEAD_S, HEAD_BYTES | 408, 431 |
| a silent body | BODY_S | 408 |
| a stranger's whole connection (`relay.lobby`) | `stranger_s` | cut; closed between two requests |
| what a stranger sends on the agents' channel | `allow`, from `relay.channel` | cut |
| a client that takes nothing of its answer | UNREAD_S | cut by the kernel |
| a connection between two requests | KEEP_S | closed |

Nothing of this touches a websocket that proved who it is; an event stream only has to be read.
Builds on `aiohttp.web.RequestHandler` over aiohttp's parser in C: the exact release is pinned in constraints.txt, and
`need_c_parser` refuses the one in Python, which takes other bytes and tells of bad ones in another way.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
from aiohttp import http_parser, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from relay.errors import (
    BadHttp,
    BadRequest,
    ConfigError,
    HeadTooLarge,
    Internal,
    RelayError,
    TooSlow,
)
from relay.problems import problem

if TYPE_CHECKING:
    from relay.lobby import Stranger

HEAD_S = 15.0
BODY_S = 30.0
KEEP_S = 75.0
"""Longer than proxies keep a connection to us open (nginx: 60 s), so that they end it and never hit a closed one."""
UNREAD_S = 60.0
STRANGER_S = 60.0
HEAD_BYTES = 64 * 1024
MAX_HEADERS = 64
CONTINUE = "100-continue"
UPGRADING = (
    *("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
    *("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"),
)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


class Keeper(Protocol):
    """The door, as a connection sees it."""

    @property
    def stranger_s(self) -> float:
        """How long a stranger's connection may last."""

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds."""

    def vouched(self, wire: "Wire") -> None:
        """Hear that a connection is no stranger's any more."""

    def gone(self, wire: "Wire") -> None:
        """Hear that a connection has ended."""

    def was_cut(self, reason: str) -> None:
        """Count a connection that we ended."""

    def refused(self, address: str, code: str) -> None:
        """Log bytes that are no request."""


class Wire(web.RequestHandler):
    """One connection, from its accept to its end."""

    __slots__ = (
        *("_began", "_body", "_head_bytes", "_head_since", "_heard", "_keeper", "_raw", "_sock"),
        *("address", "allowance", "stranger"),
    )

    def __init__(
        self, server: web.Server, keeper: Keeper, sock: socket.socket, address: str, **options: Any
    ) -> None:
        super().__init__(
            server,
            access_log=None,  # type: ignore[arg-type]  # None is aiohttp's way to say no log
            keepalive_timeout=KEEP_S,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            **options,
        )
        self._keeper = keeper
        self._sock = sock
        self._raw: asyncio.Transport | None = None
        self._began = self._heard = keeper.clock()
        self._head_since: float | None = self._began
        self._head_bytes = 0
        self._body: StreamReader = EMPTY_PAYLOAD
        self.address = address
        self.allowance: int | None = None
        self.stranger: Stranger | None = None

    @property
    def made(self) -> bool:
        """Whether the connection is up: TLS is done."""
        return self._raw is not None

    def vouch(self) -> None:
        """Say that whoever speaks here proved who it is."""
        self._keeper.vouched(self)

    def cut(self, reason: str) -> None:
        """End the connection now, whatever it does."""
        self._keeper.was_cut(reason)
        self._force_close = True
        if self._raw is not None:
            self._raw.abort()
            return
        with contextlib.suppress(OSError):  # in its handshake, which fails when nothing more comes
            self._sock.shutdown(socket.SHUT_RDWR)

    def check(self, now: float) -> None:
        """End what takes too long."""
        if self.stranger is not None and now - self._began > self._keeper.stranger_s:
            if self._between_requests():
                self.force_close()  # a health check that keeps its connection: no news
            else:
                self.cut("stranger")
        elif self._upgraded or self._payload_parser is not None or self._close or self._force_close:
            return
        elif self._current_request is None:
            if self._head_since is not None and now - self._head_since > HEAD_S:
                self._refuse_head(
                    TooSlow(f"the request's head was not complete after {HEAD_S:g} s")
                )
        elif self._reading_paused or self._buffer_paused:
            self._heard = now  # it is we who do not read
        elif self._reading_body() and now - self._heard > BODY_S:
            self._end_body(TooSlow(f"nothing of the request's body came for {BODY_S:g} s"))

    # --- what aiohttp calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the time of the first head runs from here."""
        super().connection_made(transport)
        self._head_since = self._keeper.clock()
        self._raw = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End; comes once for every connection that was made."""
        super().connection_lost(exc)
        self._keeper.gone(self)

    def data_received(self, data: bytes) -> None:
        """Parse, and see whether a head begins, goes on or ends with these bytes."""
        if self._upgraded or self._payload_parser is not None or self._close or self._force_close:
            if self.stranger is not None and self.allowance is not None:
                self.allowance -= len(data)
                if self.allowance < 0:
                    self.cut("flood")
                    return
            super().data_received(data)
            return
        self._heard = self._keeper.clock()
        count, body = self._request_count, self._body
        super().data_received(data)
        if self._request_count != count:
            if (
                not body.is_eof()
            ):  # what comes before a body's end is no request: a chunk that is none
                self._break(body)
            self._head_since, self._head_bytes = None, 0
            self._body = self._messages[-1][1]
        elif data and self._body.is_eof() and not self._reading_body():
            if self._head_since is None:
                self._head_since = self._heard
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._keeper.refused(self.address, HeadTooLarge.code)
                self._refuse_head(HeadTooLarge(f"more than {HEAD_BYTES} bytes of head"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  # aiohttp's
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes what was sent
    ) -> web.StreamResponse:
        """Answer what could not be parsed as a problem, with one line in the log that quotes nothing of it."""
        if isinstance(exc, ConnectionError):  # the client went away
            raise exc
        error = _of(exc)
        if isinstance(error, Internal):
            self.log_exception(exc_info=exc)
        else:
            self._keeper.refused(self.address, error.code)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer had begun")
        answer = problem(error)
        answer.force_close()
        return answer

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Handler
    ) -> tuple[web.StreamResponse, bool]:
        """Handle one request; headers that aiohttp would quote, or fail at, are refused before."""
        if request.headers.get("Expect", CONTINUE).lower() != CONTINUE:
            request_handler = _refuse_expect
        elif not all(request.headers.get(name, "").isascii() for name in UPGRADING):
            request_handler = _refuse_upgrade
        return await super()._handle_request(request, start_time, request_handler)

    def log_exception(self, *_args: Any, **kw: Any) -> None:
        """Log what ended a connection: a defect with its traceback, a parser's error without its text."""
        exc = kw.get("exc_info")
        if isinstance(exc, HttpProcessingError | web.RequestPayloadError):
            self._keeper.refused(self.address, BadHttp.code)
        elif not isinstance(exc, RelayError):  # ours was told when the body broke
            log.error("connection failed", peer=self.address, exc_info=exc)

    def _between_requests(self) -> bool:
        return (
            self._raw is not None
            and self._current_request is None
            and self._head_since is None
            and not self._messages
        )

    def _reading_body(self) -> bool:
        request = self._current_request
        return request is not None and not request.content.is_eof()

    # --- how it ends ---

    def _break(self, body: StreamReader) -> None:
        """Tell whoever reads a body that its rest is garbage: aiohttp lets him wait for ever."""
        self._keeper.refused(self.address, BadHttp.code)
        body.set_exception(BadHttp("the request's body is not what its headers announce"))
        body.feed_eof()
        self.close()

    def _refuse_head(self, error: RelayError) -> None:
        """Answer a head that never ended; nothing else is on its way out."""
        self._keeper.was_cut("head")
        if self._head_bytes and self.transport is not None and self._current_request is None:
            answer = problem(error)
            body = answer.body if isinstance(answer.body, bytes) else b""
            head = (
                f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Type: {answer.content_type}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\nServer: imageport\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.force_close()

    def _end_body(self, error: RelayError) -> None:
        """Let the handler fail: it answers, then the connection ends."""
        self._keeper.was_cut("body")
        request = self._current_request
        if request is not None:
            request.content.set_exception(error)
            request.content.feed_eof()
        self.close()


async def _refuse_expect(_request: web.BaseRequest) -> web.StreamResponse:
    return problem(BadRequest(f"the only Expect that this relay knows is {CONTINUE}"), status=417)


async def _refuse_upgrade(_request: web.BaseRequest) -> web.StreamResponse:
    return problem(BadHttp("a header of the websocket's handshake is not ASCII"))


def _of(exc: BaseException | None) -> RelayError:
    if isinstance(exc, LineTooLong):
        return HeadTooLarge("a line of the request's head is too long")
    if isinstance(exc, HttpProcessingError):
        return BadHttp("the request is not HTTP/1.1 that this relay takes")
    return Internal("the relay has a defect; its log says more")


def allow(request: web.BaseRequest, size: int) -> None:
    """Let a stranger's websocket take `size` bytes: aiohttp buffers a message up to the length of a known agent's."""
    if isinstance(request.protocol, Wire):
        request.protocol.allowance = size


def cut(request: web.BaseRequest, reason: str) -> None:
    """End a request's connection now; counted and told with all others that the door's port cut."""
    if isinstance(request.protocol, Wire):
        request.protocol.cut(reason)


def vouch(request: web.BaseRequest) -> None:
    """Say that a request's connection is no stranger's: it showed a good key or signature."""
    if isinstance(request.protocol, Wire):
        request.protocol.vouch()


def need_c_parser() -> None:
    """Refuse to serve with another parser than the one that `Wire` knows. Raises ConfigError."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError(
            "aiohttp runs without its parser in C: unset AIOHTTP_NO_EXTENSIONS, or install its wheel"
        )
