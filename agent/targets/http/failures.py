"""What went wrong before a service answered: connection, proxy and TLS errors as classes; and Retry-After.

Knows no cloud: what a service's own error codes mean is each target's.
"""

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp

from agent.errors import AgentError, NeedsOperator, TooSlow
from agent.targets.errors import TargetRefused, TargetUnavailable
from agent.targets.http.sender import BadRequest, ProxyRefusal

MAX_RETRY_AFTER_S = 300.0


class TlsRefused(NeedsOperator):
    """The other side's certificate is not trusted here."""

    code = "target.tls"
    fix = "If the site's proxy opens TLS, give its CA with `ca_file`; else look who answers under this name."


class ProxyRefused(NeedsOperator):
    """The proxy does not let us through."""

    code = "proxy.refused"
    fix = "Check the proxy's address and the user and password in its credentials file."


CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What a request of the session raises when it got no answer."""


def connection_failure(err: Exception, *, what: str) -> AgentError:
    """Return the error for a request that got no answer; `what` was asked ("write page at byte 0 of disk x")."""
    if isinstance(err, ProxyRefusal):
        return _proxy(err.status, f"{what}: {err}")
    if isinstance(err, BadRequest):
        return TargetRefused(f"{what}: {err}")
    if isinstance(err, aiohttp.ClientHttpProxyError):
        return _proxy(err.status, f"{what}: the proxy: HTTP {err.status} {err.message}")
    if isinstance(err, aiohttp.ClientSSLError | ssl.SSLError) and _is_certificate(err):
        return TlsRefused(f"{what}: {err}")
    text = f"{what}: {type(err).__name__}: {err}" if str(err) else f"{what}: {type(err).__name__}"
    return TooSlow(text) if isinstance(err, TimeoutError) else TargetUnavailable(text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds, bounded; None if absent or a date (the clouds send seconds)."""
    value = next((v for name, v in headers.items() if name.lower() == "retry-after"), "")
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdecimal() else None


def _proxy(status: int, text: str) -> AgentError:
    class_ = TargetUnavailable if status >= 500 else ProxyRefused
    return class_(text, status=status)


def _is_certificate(err: Exception) -> bool:
    causes = (err, err.__cause__, getattr(err, "certificate_error", None))
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
