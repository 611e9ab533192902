"""Check `relay`: the way to the relay, step by step, up to the first frame of the agent channel. Proves nothing to it.

The channel is opened by the agent's own code; the steps before it only say where a way that fails has its end.
"""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from agent.config import RelayConfig
from agent.dial import open_socket, path_seen, tls_context, websocket_url
from appliance.doctor import net
from appliance.doctor.base import Check, Context, Finding, Status, failed, passed, skipped, warned
from appliance.doctor.checks.proxy import proxy_of
from appliance.doctor.net import Place, Proxy, WayBlocked
from protocol.errors import FrameError
from protocol.frames import Challenge, parse_from_relay

CHALLENGE_S = 5.0


async def run(context: Context) -> AsyncIterator[Finding]:
    """Resolve, connect, check TLS, open the channel."""
    relay = context.config.relay
    where, proxy = net.place(relay.url), proxy_of(relay.proxy, relay.proxy_credentials_file)
    reached = await _reached(where, proxy)
    yield reached
    if reached.status is Status.FAIL:
        return
    tls = await _tls(relay, where, proxy)
    yield tls
    if tls.status is not Status.FAIL:
        yield await _channel(context, relay)


async def _reached(where: Place, proxy: Proxy | None) -> Finding:
    id_, title = "relay.reach", f"way to the relay {where}"
    first = proxy.place if proxy else where
    by = f" through the proxy {proxy.place}" if proxy else ", no proxy"
    facts = {"relay": str(where), "proxy": str(proxy.place) if proxy else ""}
    try:
        addresses = await net.resolve(first.host)
        async with net.connected(addresses, first) as (reader, writer):
            peer = net.seen(writer).peer
            if proxy is not None:
                await net.tunnel(reader, writer, where, proxy)
    except WayBlocked as err:
        told = str(err) if proxy else f"{err}{by}"
        return failed(id_, title, told, fix=err.advice, step=err.step, **facts)
    return passed(id_, title, f"connected to {peer}{by}", addresses=addresses, peer=peer, **facts)


async def _tls(relay: RelayConfig, where: Place, proxy: Proxy | None) -> Finding:
    id_, title = "relay.tls", "TLS to the relay"
    if not where.tls:
        if where.host in {"localhost", "127.0.0.1", "::1"}:
            return skipped(id_, title, "plain HTTP to this machine")
        return warned(
            id_,
            title,
            f"{relay.url} is plain HTTP: orders are signed, but others can read them",
            fix="Give the relay a certificate and use https://.",
        )
    try:
        async with net.way(where, proxy) as (_, writer):
            seen = await net.start_tls(writer, where, tls_context(relay))
    except WayBlocked as err:
        issuer = await net.issuer_seen(where, proxy) if err.step == "trust" else ""
        shown = f"; it was issued by {issuer}" if issuer else ""
        facts = {"step": err.step, "tls_issuer": issuer}
        return failed(id_, title, f"{err}{shown}", fix=err.advice, **facts)
    roots = f"the system's and those of {relay.ca_file}" if relay.ca_file else "the system's"
    return passed(
        id_,
        title,
        f"{seen.tls_version}, issued by {seen.tls_issuer}",
        tls_version=seen.tls_version,
        tls_issuer=seen.tls_issuer,
        roots=roots,
    )


async def _channel(context: Context, relay: RelayConfig) -> Finding:
    id_, title = "relay.channel", "agent channel"
    url = websocket_url(relay.url)
    fix = f"Is {relay.url} the relay, and do boxes on the way let websockets pass?"
    try:
        async with open_socket(relay) as socket:
            wall = context.wall()
            path = path_seen(socket, relay)
            headers = socket.response.headers if socket.response else {}
            async with asyncio.timeout(CHALLENGE_S):
                message = await socket.recv()
    except (InvalidHandshake, ConnectionClosed, OSError, EOFError) as err:
        told = str(err) or type(err).__name__
        return failed(id_, title, f"no websocket at {url}: {told}", fix=fix)
    if not isinstance(message, bytes) or not _is_challenge(message):
        return failed(id_, title, f"{url} opens, but does not begin with a challenge", fix=fix)
    date = net.http_date(headers.get("Date", ""))
    facts = {"peer": path.peer, "date": date, "wall": wall}
    host = urlsplit(url).netloc
    return passed(id_, title, f"{host} sent its challenge; closed again", **facts)


def _is_challenge(message: bytes) -> bool:
    try:
        return isinstance(parse_from_relay(message), Challenge)
    except FrameError:
        return False


CHECK = Check("relay", "the way to the relay: name, port, TLS, channel", run, needs=("config",))
