"""One aiohttp session for one job: proxy, trust, time-outs; and a body that sends a buffer without copying it."""

import ssl
from dataclasses import dataclass, field

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

CONNECT_S = 20.0
IDLE_S = 60.0
"""Seconds without a byte in either direction before a request counts as lost."""
TOTAL_S = 300.0
"""Seconds for one request: 4 MiB in it is 14 KiB/s, below every link that people upload disks on."""
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How this site reaches a cloud.

    Attributes:
        proxy: `http://host:port`, None for none.
        proxy_auth: `user:password` for it (Basic), None for none.
        ca_file: PEM file of further trusted roots.
    """

    proxy: str | None = None
    proxy_auth: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context: the system's roots and the site's."""
        context = ssl.create_default_context()
        if self.ca_file:
            context.load_verify_locations(self.ca_file)
        return context


def make_session(settings: HttpSettings, *, connections: int) -> aiohttp.ClientSession:
    """Return a session; the caller closes it. It never looks at the environment and never follows a redirect itself."""
    auth = None
    if settings.proxy_auth:
        user, _, password = settings.proxy_auth.partition(":")
        auth = aiohttp.BasicAuth(user, password)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=settings.tls()),
        timeout=aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=IDLE_S),
        proxy=settings.proxy,
        proxy_auth=auth,
        auto_decompress=False,
        trust_env=False,
    )


class BufferBody(Payload):
    """A request body over a caller's buffer. aiohttp's own bytes payload warns above 1 MiB and is sent in one piece."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view, content_type="application/octet-stream")
        self._size = len(view)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's signature
        """Not text; shown by its length."""
        return f"<{self._size} bytes>"

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Send at most `content_length` bytes, in pieces that let other tasks run between them."""
        view: memoryview = self._value
        end = len(view) if content_length is None else min(content_length, len(view))
        for start in range(0, end, _PIECE):
            await writer.write(view[start : min(end, start + _PIECE)])
