"""Opens the websocket to the relay: TLS with a site's own roots, HTTP CONNECT proxies with Basic auth. No protocol.

Proxies are taken from the configuration only, never from the environment: what the agent does is what its file says.
"""

import ssl
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect

from agent.config import ConfigError, RelayConfig
from agent.proxy import read_proxy_credentials
from imaging.units import KiB
from protocol.messages import MAX_EPOCH_ORDER

PATH = "/v1/channel"
MAX_MESSAGE = MAX_EPOCH_ORDER + 64 * KiB
"""The largest frame that a relay may send is an epoch order."""
OPEN_S = 20.0
CLOSE_S = 5.0
QUEUE_FRAMES = 4


@dataclass(frozen=True, slots=True)
class PathSeen:
    """How the relay was reached, for doctor.

    Attributes:
        peer: Address that the socket is connected to (the proxy's if there is one).
        tls_version: "TLSv1.3", "" for plain HTTP.
        tls_issuer: Who issued the certificate that was seen: a TLS-intercepting box shows here.
        proxy: The proxy, without credentials.
    """

    peer: str
    tls_version: str
    tls_issuer: str
    proxy: str


def websocket_url(base: str) -> str:
    """Return the agent channel's URL under a relay's base URL."""
    parts = urlsplit(base)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{PATH}"


def open_socket(relay: RelayConfig) -> connect:
    """Return the connection attempt, to be entered with `async with`.

    Raises:
        ConfigError: The CA file or the proxy's credentials cannot be read.
    """
    url = websocket_url(relay.url)
    return connect(
        url,
        ssl=tls_context(relay) if url.startswith("wss:") else None,
        proxy=proxy_url(relay),
        compression=None,
        max_size=MAX_MESSAGE,
        max_queue=QUEUE_FRAMES,
        open_timeout=OPEN_S,
        close_timeout=CLOSE_S,
        ping_interval=relay.heartbeat_s,
        ping_timeout=relay.heartbeat_s / 2,
        user_agent_header="imageport-agent",
    )


def tls_context(relay: RelayConfig) -> ssl.SSLContext:
    """Return the TLS settings: the system's roots and the site's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if relay.ca_file is not None:
        try:
            context.load_verify_locations(relay.ca_file)
        except (OSError, ssl.SSLError) as err:
            msg = f"relay.ca_file {relay.ca_file}: {err}"
            raise ConfigError(msg, path=relay.ca_file) from err
    return context


def proxy_url(relay: RelayConfig) -> str | None:
    """Return the proxy with its credentials, as the websocket client takes it."""
    if relay.proxy is None:
        return None
    if relay.proxy_credentials_file is None:
        return relay.proxy
    user, password = read_proxy_credentials(relay.proxy_credentials_file)
    parts = urlsplit(relay.proxy)
    return f"{parts.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"


def path_seen(socket: ClientConnection, relay: RelayConfig) -> PathSeen:
    """Describe the path of an open connection."""
    peer = socket.remote_address
    tls = socket.transport.get_extra_info("ssl_object")
    return PathSeen(
        peer=f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer),
        tls_version=(tls.version() or "") if tls else "",
        tls_issuer=_issuer(tls.getpeercert()) if tls else "",
        proxy=relay.proxy or "",
    )


def _issuer(certificate: dict[str, object] | None) -> str:
    parts = (certificate or {}).get("issuer", ())
    names = [pair for rdn in parts for pair in rdn] if isinstance(parts, tuple) else []
    return ", ".join(f"{name}={value}" for name, value in names)
