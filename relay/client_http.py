"""The SDK's HTTP: one session with proxy and CA, retries that are safe, problems as errors. Knows no job.

A request is sent again after a broken connection, 429, 502, 503, 504 and `relay.in-flight`, with full jitter between
0 and 0.5, 1, 2 ... 8 s or what Retry-After says. That is safe because every POST carries an Idempotency-Key and is
sent with the same bytes.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
from yarl import URL

from relay.errors import ClientError, Unreachable

ATTEMPTS = 6
BACKOFF_S = 0.5
BACKOFF_CAP_S = 8.0
MAX_RETRY_AFTER_S = 60.0
CONNECT_S = 15.0
ANSWER_S = 60.0
MAX_ANSWER = 16 * 1024 * 1024
MAX_TOLD = 64 * 1024
AGAIN = frozenset({429, 502, 503, 504})

HeaderMaker = Callable[[], Mapping[str, str]]
"""Makes the headers of one attempt: a signature carries the time, so it is made anew each time."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A good answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, object]:
        """Return the body's JSON object. Raises ClientError."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, object])
        except msgspec.DecodeError as err:
            raise ClientError(
                f"the relay's answer is no JSON object: {err}", status=self.status
            ) from err


@dataclass(slots=True)
class Transport:
    """One client session. Use as an async context.

    Attributes:
        url: The relay's address, `https://host[:port]`.
        api_key: Sent as a bearer token; never part of an error.
        ca_file: PEM file of the CAs to trust instead of the system's.
        proxy: `http://[user:password@]host:port`.
        retrying: Hears why a request is sent again, before the wait.
        clock: Wall clock, seconds; `jitter` draws from [0, x].
    """

    url: str
    api_key: str = field(repr=False)
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)
    retrying: Callable[[ClientError], None] = lambda _err: None
    clock: Callable[[], float] = lambda: time.time_ns() / 1e9
    jitter: Callable[[float], float] = lambda most: random.uniform(0, most)  # noqa: S311  # not for secrets
    _session: aiohttp.ClientSession | None = None
    _proxy_login: dict[str, str] = field(default_factory=dict, repr=False)

    async def __aenter__(self) -> "Transport":
        proxy, self._proxy_login = _split_proxy(self.proxy)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(self.ca_file)),
            headers={"User-Agent": "imageport"},
            proxy=proxy,
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: HeaderMaker = dict,
    ) -> Answered:
        """Send a request until it is answered for good.

        Raises:
            ClientError: The answer is an error that no retry mends.
            Unreachable: No attempt was answered.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(method, path, body, headers())
            except ClientError as err:
                if not err.fields.get("again") or attempt == ATTEMPTS:
                    raise
                self.retrying(err)
                wait = err.fields.get("retry_after") or self.backoff(attempt)
                await asyncio.sleep(min(wait, MAX_RETRY_AFTER_S))
        raise AssertionError  # the last attempt returned or raised

    def backoff(self, attempt: int) -> float:
        """Return the seconds to wait before the next attempt: full jitter."""
        return self.jitter(min(BACKOFF_S * 2 ** (attempt - 1), BACKOFF_CAP_S))

    async def _once(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answered:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
        async with self._open(method, path, body, headers, timeout) as response:
            try:
                data = await _read_up_to(response, MAX_ANSWER + 1)
            except (aiohttp.ClientError, TimeoutError, OSError) as err:
                raise _unreachable(self.url, err) from err
            if len(data) > MAX_ANSWER:
                raise ClientError(
                    f"the answer has more than {MAX_ANSWER} bytes", status=response.status
                )
            if response.status >= 400:
                raise failure(response.status, response.headers, data)
            return Answered(response.status, dict(response.headers), data)

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], *, idle_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream that may be silent for `idle_s` seconds. Raises ClientError, Unreachable."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=idle_s)
        async with self._open("GET", path, b"", headers, timeout) as response:
            if response.status >= 400:
                told = await _read_up_to(response, MAX_TOLD)
                raise failure(response.status, response.headers, told)
            yield response

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise ClientError("the client is not open: use `async with`")
        url = URL(self.url.rstrip("/") + path, encoded=True)
        # The session's default headers go to the proxy too, so the API key is not one of them. In a tunnel the
        # password is for the proxy only; without a tunnel there is no other place than the request.
        tunnel = url.scheme == "https"
        own = {**headers, "Authorization": f"Bearer {self.api_key}"}
        request = self._session.request(
            method,
            url,
            data=body or None,
            headers=own if tunnel else {**own, **self._proxy_login},
            proxy_headers=self._proxy_login if tunnel and self._proxy_login else None,
            timeout=limits,
            allow_redirects=False,
        )
        try:
            response = await request
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise _unreachable(self.url, err) from err
        async with response:
            yield response


async def _read_up_to(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the answer's first `most` bytes: a single read returns only what has just arrived."""
    body = bytearray()
    while len(body) < most and (piece := await response.content.read(most - len(body))):
        body += piece
    return bytes(body)


def failure(status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """Return the error that an answer means."""
    try:
        problem = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        problem = {}
    code = str(problem.get("code", ""))
    text = str(problem.get("detail") or f"the relay answered HTTP {status}")
    after = headers.get("Retry-After", "")
    return ClientError(
        f"{text} ({code or status})",
        problem=code,
        status=status,
        fix=str(problem.get("fix", "")),
        again=status in AGAIN or code == "relay.in-flight",
        retry_after=float(after) if after.isdecimal() else None,
    )


def _unreachable(url: str, err: Exception) -> Unreachable:
    """Name what broke, without the proxy's password and without a traceback."""
    match err:
        case aiohttp.ClientHttpProxyError():
            why = f"the proxy answered {err.status}"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            why = f"TLS: {getattr(err, 'certificate_error', err)}"
        case TimeoutError():
            why = "no answer in time"
        case _:
            why = str(err) or type(err).__name__
    return Unreachable(f"{URL(url).with_user(None)}: {why}", again=True)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as err:
        raise ClientError(f"CA file {ca_file}: {err}") from err


def _split_proxy(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return the proxy's address and the header of its user and password."""
    if proxy is None:
        return None, {}
    url = URL(proxy)
    if url.user is None:
        return url, {}
    login = aiohttp.encode_basic_auth(url.user, url.password or "")
    return url.with_user(None), {"Proxy-Authorization": login}
