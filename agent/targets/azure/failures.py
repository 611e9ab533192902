"""From an HTTP answer to the error class that decides what happens next.

Decides on status and code, never on text. Sources: Azure Storage "Status and error codes", "Blob service error codes";
ARM "Common error codes"; and what users met (500 OperationTimedOut under load is a throttle in disguise).
"""

from collections.abc import Mapping

from agent.errors import AgentError, Retryable, Throttled, TooSlow
from agent.targets.errors import (
    AccessForbidden,
    ChecksumRefused,
    CredentialRefused,
    DiskLost,
    TargetNotFound,
    TargetRefused,
    TargetUnavailable,
)
from agent.targets.http.failures import ProxyRefused, retry_after

_THROTTLED = frozenset({"ServerBusy", "TooManyRequests", "AccountBeingCreated"})
_TOO_SLOW = frozenset({"OperationTimedOut", "RequestTimeout"})
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
        (code in _TOO_SLOW or status == 408, TooSlow),
        (code in _CHECKSUM, ChecksumRefused),
        (status == 401 or code in CREDENTIAL_CODES, CredentialRefused),
        (status == 403, AccessForbidden),
        (status == 404 and code in _MISSING, TargetNotFound),
        (status == 404, DiskLost),
        (status == 407, ProxyRefused),
        (status >= 500, TargetUnavailable),
    )
    return next((class_ for matches, class_ in rules if matches), TargetRefused)
