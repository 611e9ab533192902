"""Calls made by hand for the simulator's unit tests: a request without a socket."""

from urllib.parse import parse_qsl, urlsplit

from multidict import CIMultiDict

from appliance.sim.call import Call

NOW = 1_700_000_000.0


class ReadyBody:
    """A body that has arrived, in as many chunks as the test wants."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    async def read(self) -> list[bytes]:
        return self.chunks


def call(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    *chunks: bytes,
    now: float = NOW,
    scheme: str = "http",
    client: str = "127.0.0.1",
    host: str = "127.0.0.1:1",
) -> Call:
    """Make a request; Content-Length is that of the chunks."""
    parts = urlsplit(url)
    return Call(
        method=method,
        path=parts.path,
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers=CIMultiDict(headers or {}),
        host=host,
        scheme=scheme,
        client=client,
        length=sum(map(len, chunks)),
        body=ReadyBody(*chunks),
        now=now,
    )
