"""Check `proxy`: the HTTP proxies of the configuration take our credentials. Asks each for one tunnel."""

from collections.abc import AsyncIterator

from agent.proxy import read_proxy_credentials
from appliance.doctor import net
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped
from appliance.doctor.net import Place, Proxy, WayBlocked
from appliance.doctor.together import together

UPLOAD_PROBE = Place("management.azure.com", 443, tls=True)
"""Asked of the proxy for uploads: every upload to a managed disk begins there."""


async def run(context: Context) -> AsyncIterator[Finding]:
    """Try each proxy; the same one for both purposes is tried for both, rules differ by destination."""
    config = context.config
    ways = (
        ("proxy.relay", config.relay, net.place(config.relay.url)),
        ("proxy.uploads", config.uploads, UPLOAD_PROBE),
    )
    if not any(section.proxy for _, section, _ in ways):
        yield skipped("proxy", "HTTP proxies", "none is configured")
    found = [
        (id_, proxy_of(way.proxy, way.proxy_credentials_file), where) for id_, way, where in ways
    ]
    parts = [_tried(id_, proxy, where) for id_, proxy, where in found if proxy is not None]
    for finding in await together(parts):
        yield finding


def proxy_of(url: str | None, credentials_file: str | None) -> Proxy | None:
    """Return the proxy of a section of the configuration, None if it has none. Raises ConfigError."""
    if url is None:
        return None
    credentials = ":".join(read_proxy_credentials(credentials_file)) if credentials_file else ""
    return Proxy(net.place(url), credentials)


async def _tried(id_: str, proxy: Proxy, where: Place) -> Finding:
    title = f"proxy {proxy.place} for {where}"
    facts = {"proxy": str(proxy.place), "to": str(where), "credentials": bool(proxy.credentials)}
    try:
        async with net.way(where, proxy):
            return passed(id_, title, "gives a tunnel", **facts)
    except WayBlocked as err:
        return failed(id_, title, str(err), fix=err.advice, step=err.step, **facts)


CHECK = Check("proxy", "configured HTTP proxies give tunnels", run, needs=("config",))
