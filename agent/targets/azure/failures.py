"""From an HTTP answer or a connection error to the error class that decides what happens next.

Decides on status and code, never on text. Sources: Azure Storage "Status and error codes", "Blob service error codes";
ARM "Common error codes"; and what users met (500 OperationTimedOut under load is a throttle in disguise).
"""

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp

from agent.errors import AgentError, NeedsOperator, Retryable, Throttled
from agent.targets.azure.sender import BadRequest, ProxyRefusal
from agent.targets.errors import (
    AccessForbidden,
    ChecksumRefused,
    CredentialRefused,
    DiskLost,
    TargetNotFound,
    TargetRefused,
    TargetUnavailable,
)

_THROTTLED = frozenset(
    {"ServerBusy", "OperationTimedOut", "TooManyRequests", "AccountBeingCreated"}
)
_CHECKSUM = frozenset({"Md5Mismatch", "Crc64Mismatch"})
_MISSING = frozenset({"ContainerNotFound", "ResourceGroupNotFound", "ContainerBeingDeleted"})
CREDENTIAL_CODES = frozenset(
    {
        "AuthenticationFailed",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
        "ExpiredAuthenticationToken",
        "InvalidAuthenticationToken",
        "InvalidAuthenticationTokenTenant",
    }
)
MAX_RETRY_AFTER_S = 300.0


class TlsRefused(NeedsOperator):
    """The other side's certificate is not trusted here."""

    code = "target.tls"
    fix = "If the site's proxy opens TLS, give its CA with `ca_file`; else look who answers under this name."


class ProxyRefused(NeedsOperator):
    """The proxy does not let us through."""

    code = "proxy.refused"
    fix = "Check the proxy's address and the user and password in its credentials file."


def failure(
    status: int, code: str, message: str, headers: Mapping[str, str], *, what: str
) -> AgentError:
    """Return the error for an answer that is no success.

    Args:
        status: HTTP status.
        code: The service's own error code, "" if it gave none.
        message: Its message; shown, never decided on.
        headers: Of the answer, for Retry-After.
        what: What was asked ("write page at byte 0 of disk x").
    """
    text = f"{what}: HTTP {status} {code or 'without code'}" + (f": {message}" if message else "")
    class_ = _class_of(status, code)
    if issubclass(class_, Retryable):
        return class_(text, retry_after=retry_after(headers), status=status, service_code=code)
    return class_(text, status=status, service_code=code)


def _class_of(status: int, code: str) -> type[AgentError]:
    rules: tuple[tuple[bool, type[AgentError]], ...] = (
        (status in (429, 503) or code in _THROTTLED, Throttled),
        (code in _CHECKSUM, ChecksumRefused),
        (status == 401 or code in CREDENTIAL_CODES, CredentialRefused),
        (status == 403, AccessForbidden),
        (status == 404 and code in _MISSING, TargetNotFound),
        (status == 404, DiskLost),
        (status == 407, ProxyRefused),
        (status == 408 or status >= 500, TargetUnavailable),
    )
    return next((class_ for matches, class_ in rules if matches), TargetRefused)


def connection_failure(err: Exception, *, what: str) -> AgentError:
    """Return the error for a request that got no answer."""
    if isinstance(err, ProxyRefusal):
        class_ = TargetUnavailable if err.status >= 500 else ProxyRefused
        return class_(f"{what}: {err}", status=err.status)
    if isinstance(err, BadRequest):
        return TargetRefused(f"{what}: {err}")
    if isinstance(err, aiohttp.ClientHttpProxyError):
        return failure(err.status, "", err.message, {}, what=f"{what}: the proxy")
    if isinstance(err, aiohttp.ClientSSLError | ssl.SSLError) and _is_certificate(err):
        return TlsRefused(f"{what}: {err}")
    return TargetUnavailable(
        f"{what}: {type(err).__name__}: {err}" if str(err) else f"{what}: {type(err).__name__}"
    )


CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What a request raises when it got no answer."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return Retry-After in seconds, bounded; None if absent or a date (Azure sends seconds)."""
    value = next((v for name, v in headers.items() if name.lower() == "retry-after"), "")
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdecimal() else None


def _is_certificate(err: Exception) -> bool:
    causes = (err, err.__cause__, getattr(err, "certificate_error", None))
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
