"""One request and one answer as plain values, so that a simulator's rules are tested without a socket.

Holds no rule of any cloud and does no I/O itself; `appliance.sim.server` makes a Call of what aiohttp received.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Body(Protocol):
    """The part of a request that may not have arrived yet."""

    async def read(self) -> list[bytes]:
        """Return the whole body as the chunks that came off the wire; call once.

        Raises:
            ConnectionError: The client went away before `Content-Length` bytes had come.
        """
        ...


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        path: As received, still percent-encoded, without the query.
        query: Decoded; a name that came twice keeps its first value.
        headers: Case-insensitive mapping.
        host: The Host header.
        client: Peer address.
        length: Content-Length, None when the header is missing.
        now: Seconds since the epoch at which the request arrived.
        repeated: The query again, with every value of each name.
        marks: What injected faults want done to the stored data (`Mark`).
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    host: str
    scheme: str
    client: str
    length: int | None
    body: Body
    now: float
    marks: set[str] = field(default_factory=set)
    repeated: Mapping[str, list[str]] = field(default_factory=dict)

    def header(self, name: str) -> str:
        """Return a header's value, "" when it is missing."""
        return self.headers.get(name, "")


@dataclass(slots=True)
class Reply:
    """One answer; a long one has `stream` pieces of `stream_length` bytes in all instead of a body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterator[bytes] | None = None
    stream_length: int = 0


class Refusal(Exception):
    """The simulated service says no; the plane that was called decides how that looks on the wire.

    Attributes:
        status: HTTP status.
        code: The service's own error code ("Md5Mismatch").
        headers: Extra headers of the answer.
        detail: Second sentence for the developer, in the place where the service has one.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = _writable(message)
        self.headers = headers or {}
        self.detail = _writable(detail)


def _writable(text: str) -> str:
    """Replace what a client sent as no valid UTF-8 (aiohttp keeps it as surrogates)."""
    return text.encode(errors="replace").decode()


class Plane(Protocol):
    """One part of a simulated service with its own addresses, operations and way to say no."""

    def operation(self, call: Call, /) -> str:
        """Name the operation ("blob.put-page") for faults and statistics; never raises."""
        ...

    async def answer(self, call: Call, /) -> Reply:
        """Do what was asked.

        Raises:
            Refusal: The service would refuse this request.
        """
        ...

    def refuse(self, call: Call, refusal: Refusal, /) -> Reply:
        """Put a refusal into this plane's wire form."""
        ...
