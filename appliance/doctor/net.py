"""The way to a server in steps that can fail one by one: resolve, connect, CONNECT, TLS, one HTTP HEAD. Judges nothing.

Small and apart from the clients that jobs use, because it must say where a way ends and whom it saw there.
"""

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from cryptography import x509

from agent.errors import Retryable
from appliance.doctor.threads import in_thread

MAX_HEAD = 32 * 1024
STEP_S = 6.0
"""For each step."""
ADDRESS_S = STEP_S / 2
"""For one address of several: where IPv6 leads nowhere, IPv4 gets its turn. A lost SYN is sent again after 1 s."""


class WayBlocked(Retryable):
    """One step of the way to a server failed."""

    code = "doctor.way-blocked"
    exit_code = 69
    fix = "See the step that the message names."

    def __init__(self, message: str, *, step: str, fix: str) -> None:
        super().__init__(message, step=step)
        self.step = step
        self.advice = fix


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: Whether TLS is spoken there.
    """

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `credentials` is `user:password`, "" for none."""

    place: Place
    credentials: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """Whom a way led to."""

    peer: str
    tls_version: str
    tls_issuer: str


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP answer; `date` is the server's clock, seconds since 1970, None if it sent none."""

    status: int
    date: float | None


def place(url: str) -> Place:
    """Return where an http(s) or ws(s) URL leads."""
    parts = urlsplit(url)
    tls = parts.scheme in {"https", "wss"}
    return Place(parts.hostname or "", parts.port or (443 if tls else 80), tls)


async def resolve(host: str) -> list[str]:
    """Return the addresses of a name. Raises WayBlocked."""
    try:
        async with asyncio.timeout(STEP_S):
            rows = await in_thread(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError as err:  # TimeoutError is one
        why = getattr(err, "strerror", None) or "no answer from the name servers"
        raise WayBlocked(
            f"{host} has no address: {why}",
            step="dns",
            fix=f"Check the name, and DNS on this machine: `getent hosts {host}`.",
        ) from err
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def _one_of_each_family(addresses: list[str]) -> list[str]:
    """Return the first address of each family: a name with many addresses must not use up all the time."""
    first: dict[bool, str] = {}
    for address in addresses:
        first.setdefault(":" in address, address)
    return list(first.values())


@asynccontextmanager
async def connected(
    addresses: list[str], where: Place
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the first address that answers. Raises WayBlocked with the last one's reason."""
    reason = "there is no address"
    for address in _one_of_each_family(addresses):
        try:
            async with asyncio.timeout(ADDRESS_S):
                reader, writer = await asyncio.open_connection(address, where.port, limit=MAX_HEAD)
        except OSError as err:
            reason = f"{address}: {_reason(err)}"
            continue
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()
        return
    raise WayBlocked(
        f"no TCP connection to {where}: {reason}",
        step="tcp",
        fix=f"Is something listening there, and does the firewall let {where} out?",
    )


async def tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: Place, proxy: Proxy
) -> None:
    """Ask a connected proxy for a tunnel. Raises WayBlocked."""
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.credentials:
        token = base64.b64encode(proxy.credentials.encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    head = await _exchange(reader, writer, lines, f"the proxy {proxy.place}")
    if head.status == 407:
        raise WayBlocked(
            f"the proxy {proxy.place} wants other credentials (407)",
            step="proxy-auth",
            fix="Put user:password into a file of mode 0600 and name it as proxy_credentials_file.",
        )
    if head.status != 200:
        raise WayBlocked(
            f"the proxy {proxy.place} refuses a tunnel to {where} ({head.status})",
            step="proxy",
            fix=f"Let the proxy's rules allow CONNECT to {where}.",
        )


async def start_tls(writer: asyncio.StreamWriter, where: Place, context: ssl.SSLContext) -> Seen:
    """Begin TLS on a connection and return whom it shows. Raises WayBlocked."""
    try:
        async with asyncio.timeout(STEP_S):
            await writer.start_tls(context, server_hostname=where.host)
    except ssl.SSLCertVerificationError as err:
        raise WayBlocked(
            f"the certificate of {where} is not trusted: {err.verify_message.rstrip('.')}",
            step="trust",
            fix="If your site's proxy opens TLS, name its root certificate as ca_file; else do not go on.",
        ) from err
    except OSError as err:  # ssl.SSLError and TimeoutError too
        raise WayBlocked(
            f"TLS with {where} failed: {_reason(err)}",
            step="tls",
            fix="Is TLS spoken on that port, and does a box on the way cut it?",
        ) from err
    return seen(writer)


def seen(writer: asyncio.StreamWriter) -> Seen:
    """Describe the other end of a connection."""
    peer = writer.get_extra_info("peername")
    tls = writer.get_extra_info("ssl_object")
    raw = tls.getpeercert(binary_form=True) if tls else None
    issuer = x509.load_der_x509_certificate(raw).issuer.rfc4514_string() if raw else ""
    address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)
    return Seen(address, (tls.version() or "") if tls else "", issuer)


def blind_context() -> ssl.SSLContext:
    """Return TLS settings that trust anybody: to see who is there, never to send anything."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def way(
    where: Place, proxy: Proxy | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a place, through the proxy if there is one. Raises WayBlocked."""
    first = proxy.place if proxy else where
    async with connected(await resolve(first.host), first) as (reader, writer):
        if proxy is not None:
            await tunnel(reader, writer, where, proxy)
        yield reader, writer


async def issuer_seen(where: Place, proxy: Proxy | None) -> str:
    """Return who issued the certificate that a place shows, trusted or not; "" if that cannot be seen."""
    try:
        async with way(where, proxy) as (_, writer):
            return (await start_tls(writer, where, blind_context())).tls_issuer
    except (WayBlocked, ValueError):
        return ""


async def ask_head(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: Place, path: str = "/"
) -> Head:
    """Send one HEAD request and return the answer's head. Raises WayBlocked."""
    lines = [f"HEAD {path} HTTP/1.1", f"Host: {where}", "Connection: close"]
    return await _exchange(reader, writer, lines, str(where))


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lines: list[str], whom: str
) -> Head:
    try:
        async with asyncio.timeout(STEP_S):
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await writer.drain()
            raw = await reader.readuntil(b"\r\n\r\n")
        return _head(raw.decode("latin-1"))
    except (OSError, EOFError) as err:
        why = "closed the connection" if isinstance(err, EOFError) else _reason(err)
        raise WayBlocked(
            f"{whom} takes connections, but not a request: {why}",
            step="http",
            fix="Is it healthy, and does a box on the way cut what it does not know?",
        ) from err
    except (asyncio.LimitOverrunError, ValueError) as err:
        raise WayBlocked(
            f"{whom} does not speak HTTP",
            step="http",
            fix="Check the port: another service answers there.",
        ) from err


def _reason(err: OSError) -> str:
    """Say in few words why the system gave up."""
    if isinstance(err, ssl.SSLError):
        return err.reason or str(err)
    if isinstance(err, TimeoutError):
        return "no answer"
    return os.strerror(err.errno) if err.errno else str(err)


def _head(text: str) -> Head:
    """Read a head; raises ValueError if it is none."""
    first, *rest = text.split("\r\n")
    version, status = first.split(" ", 2)[:2]
    if not version.startswith("HTTP/1."):
        msg = "not HTTP/1"
        raise ValueError(msg)
    fields = {
        name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)
    }
    return Head(int(status), http_date(fields.get("date", "")))


def http_date(text: str) -> float | None:
    """Return an HTTP Date as seconds since 1970, None if it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
