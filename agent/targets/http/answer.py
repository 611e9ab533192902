"""The answer reader of the page sender: HTTP/1.1 answers out of pieces of bytes, bounded. Knows no socket.

Everything that a server may get wrong ends in `BadAnswer`; nothing is guessed. A connection is kept only if the end of
the answer was certain and nothing came behind it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_HEAD = 32 * 1024
MAX_BODY = 64 * 1024
"""Bytes of an answer that are read: page writes answer with nothing, refusals with a short XML."""
MAX_INTERIM = 8
"""1xx answers before the real one."""
_MAX_CHUNK_LINE = 256
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
_INTERIM = re.compile(rb"(?:HTTP/1\.[01] 1[0-9]{2}[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+")
_NO_BODY = (204, 304)
_OK, _MULTIPLE = 200, 300


class BadAnswer(Exception):
    """What came is no HTTP answer, or not all of one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: Its status.
        reason: Text behind the status.
        headers: Names in lower case; values of equal names joined by commas.
        body: At most its first `MAX_BODY` bytes.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is 2xx."""
        return _OK <= self.status < _MULTIPLE


class AnswerReader:
    """Reads one answer.

    Attributes:
        keep: After `read`: whether the connection may carry another request.
    """

    def __init__(self, receive: Callable[[], bytes], *, begun: bytes = b"") -> None:
        """Read from `receive` (b"" is the end); `begun` came already."""
        self._receive = receive
        self._buffer = bytearray(begun)
        self.keep = False

    def read(self, *, connect: bool = False) -> Answer:
        """Return the final answer; `connect`: to a CONNECT, whose success has no body (RFC 9110 9.3.6).

        Raises:
            BadAnswer: It is none, is too long, or ended early.
        """
        for _ in range(MAX_INTERIM):
            version, status, reason, headers = self._head()
            if status >= _OK:
                break
        else:
            msg = f"more than {MAX_INTERIM} interim answers"
            raise BadAnswer(msg)
        if (connect and status < _MULTIPLE) or status in _NO_BODY:
            body, ended = b"", True
        else:
            body, ended = self._body(headers)
        close = "close" in headers.get("connection", "").lower()
        self.keep = ended and version == "HTTP/1.1" and not close and not self._buffer
        return Answer(status, reason, headers, body)

    # --- the head -----------------------------------------------------------------------------------------

    def _head(self) -> tuple[str, int, str, dict[str, str]]:
        text = self._until(b"\r\n\r\n", MAX_HEAD).decode("latin-1")
        first, *lines = text.split("\r\n")
        version, _, rest = first.partition(" ")
        status, _, reason = rest.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or len(status) != 3 or not _is_number(status):
            msg = f"expected an HTTP/1.1 status line, found {first[:60]!r}"
            raise BadAnswer(msg)
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                msg = f"expected a header, found {line[:60]!r}"
                raise BadAnswer(msg)
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return version, int(status), reason[:200], headers

    # --- the body -----------------------------------------------------------------------------------------

    def _body(self, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """Return (its beginning, whether all of it was read and its end was told)."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                msg = f"expected transfer-encoding chunked, found {coding[:60]!r}"
                raise BadAnswer(msg)
            body, ended = self._chunked()
            return body, ended and length is None  # both are a way to smuggle
        if length is None:
            return self._to_the_end(), False
        if not _is_number(length):
            msg = f"expected a content-length, found {length[:60]!r}"
            raise BadAnswer(msg)
        if int(length) > MAX_BODY:
            return self._exactly(MAX_BODY), False
        return self._exactly(int(length)), True

    def _chunked(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            size = self._until(b"\r\n", _MAX_CHUNK_LINE).split(b";")[0].strip()
            if not _CHUNK_SIZE.fullmatch(size):
                msg = f"expected the size of a chunk, found {size[:20]!r}"
                raise BadAnswer(msg)
            count = int(size, 16)
            if count == 0:
                return body, self._until(b"\r\n", _MAX_CHUNK_LINE) == b""  # trailers: not kept
            if len(body) + count > MAX_BODY:
                return body + self._exactly(MAX_BODY - len(body)), False
            body += self._exactly(count)
            if self._exactly(2) != b"\r\n":
                raise BadAnswer("a chunk is longer than it said")

    def _to_the_end(self) -> bytes:
        while len(self._buffer) < MAX_BODY and (data := self._receive()):
            self._buffer += data
        return bytes(self._buffer[:MAX_BODY])

    # --- bytes --------------------------------------------------------------------------------------------

    def _until(self, end: bytes, most: int) -> bytes:
        """Take everything up to `end`, and drop `end`."""
        while (at := self._buffer.find(end)) < 0 and len(self._buffer) <= most:
            self._more()
        if not 0 <= at <= most:
            msg = f"more than {most} bytes without an end"
            raise BadAnswer(msg)
        taken = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return taken

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _more(self) -> None:
        data = self._receive()
        if not data:
            msg = (
                "the answer ended early"
                if self._buffer
                else "the connection ended without an answer"
            )
            raise BadAnswer(msg)
        self._buffer += data


def is_interim(data: bytes) -> bool:
    """Return whether this is whole 1xx answers and nothing else; they may come unasked (RFC 9110 15.2)."""
    return _INTERIM.fullmatch(data) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
