"""How one job reaches a cloud: proxy, trust, time-outs; and the aiohttp session for everything but page writes."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp

CONNECT_S = 20.0
IDLE_S = 60.0
"""Seconds without a byte in either direction before a request counts as lost."""
TOTAL_S = 300.0
"""Seconds for one request: 4 MiB in it is 14 KiB/s, below every link that people upload disks on."""


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
        # aiohttp has a context of the system's roots already; another one costs 0.1 s
        connector=aiohttp.TCPConnector(
            limit=connections, ssl=settings.tls() if settings.ca_file else True
        ),
        timeout=aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=IDLE_S),
        proxy=settings.proxy,
        proxy_auth=auth,
        auto_decompress=False,
        trust_env=False,
    )


def proxy_with_auth(settings: HttpSettings) -> str | None:
    """Return the proxy's URL with its user and password inside, as the SDKs want it."""
    if not settings.proxy or not settings.proxy_auth:
        return settings.proxy
    user, _, password = settings.proxy_auth.partition(":")
    scheme, _, rest = settings.proxy.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
