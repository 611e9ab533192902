"""Check `proxy`: the HTTP proxies of the configuration take our credentials. Asks each for one tunnel."""

from collections.abc import AsyncIterator

from agent.policy import endpoint_allowed
from agent.proxy import read_proxy_credentials
from appliance.doctor import net
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped
from appliance.doctor.net import Place, Proxy, WayBlocked
from appliance.doctor.together import together

UPLOAD_PROBE = "https://management.azure.com"
"""Asked of the proxy for uploads where policy allows it and names no endpoint: uploads to managed disks begin there."""
_WILDCARDS = frozenset("*?[")


async def run(context: Context) -> AsyncIterator[Finding]:
    """Try each proxy; the same one for both purposes is tried for both, rules differ by destination."""
    config = context.config
    if not config.relay.proxy and not config.uploads.proxy:
        yield skipped("proxy", "HTTP proxies", "none is configured")
    parts = []
    if proxy := proxy_of(config.relay.proxy, config.relay.proxy_credentials_file):
        parts.append(_tried("proxy.relay", proxy, net.place(config.relay.url)))
    if proxy := proxy_of(config.uploads.proxy, config.uploads.proxy_credentials_file):
        probe = upload_probe(context)
        if probe is None:
            why = "policy names no endpoint without wildcards; give --target URL"
            yield skipped("proxy.uploads", f"proxy {proxy.place} for uploads", why)
        else:
            parts.append(_tried("proxy.uploads", proxy, probe))
    for finding in await together(parts):
        yield finding


def endpoints_of(context: Context) -> list[str]:
    """Return the endpoints that have a name of their own: of `--target` or the job, else of the policy, too."""
    if context.options.of_job:
        return list(dict.fromkeys(context.options.targets))
    named = [url for url in context.config.policy.endpoints if not _WILDCARDS & set(url)]
    return list(dict.fromkeys([*context.options.targets, *named]))


def upload_probe(context: Context) -> Place | None:
    """Return a place that uploads of this site may go to: what they may not, its proxy need not let through either."""
    named = endpoints_of(context)
    if named:
        return net.place(named[0])
    return net.place(UPLOAD_PROBE) if endpoint_allowed(UPLOAD_PROBE, context.config) else None


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
