"""From the errors of Google's APIs to the error class that decides what happens next.

Decides on status and code, never on text. Sources: "HTTP status and error codes" for XML and for JSON of Cloud Storage,
"Troubleshooting" of the Compute Engine API.
"""

from collections.abc import Mapping
from typing import Any

from agent.errors import AgentError, Retryable, Throttled, TooSlow
from agent.targets.errors import (
    AccessForbidden,
    ChecksumRefused,
    CredentialRefused,
    DiskLost,
    QuotaExceeded,
    TargetExists,
    TargetNotFound,
    TargetRefused,
    TargetUnavailable,
)
from agent.targets.http.failures import ProxyRefused, TlsRefused, retry_after

_BY_CODE: dict[str, type[AgentError]] = {
    "BadDigest": ChecksumRefused,
    "IncompleteBody": TargetUnavailable,
    "InvalidPart": DiskLost,
    "NoSuchBucket": TargetNotFound,
    "NoSuchKey": DiskLost,
    "NoSuchUpload": DiskLost,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "RequestTimeout": TooSlow,
    "SlowDown": Throttled,
    "alreadyExists": TargetExists,
    "quotaExceeded": QuotaExceeded,
    "rateLimitExceeded": Throttled,
    "userRateLimitExceeded": Throttled,
}


def failure(
    status: int, code: str, message: str, headers: Mapping[str, str], *, what: str
) -> AgentError:
    """Return the error for an answer that is no success; `what` was asked, `message` is shown only."""
    text = f"{what}: HTTP {status} {code or 'without code'}" + (f": {message}" if message else "")
    kind = _BY_CODE.get(code) or _by_status(status)
    request_id = next(
        (v for k, v in headers.items() if k.lower() in ("x-guploader-uploadid", "x-request-id")), ""
    )
    fields: dict[str, Any] = {"status": status, "service_code": code, "request_id": request_id}
    if issubclass(kind, Retryable):
        return kind(text, retry_after=retry_after(headers), **fields)
    return kind(text, **fields)


def _by_status(status: int) -> type[AgentError]:
    rules: tuple[tuple[bool, type[AgentError]], ...] = (
        (status in (429, 503), Throttled),
        (status == 401, CredentialRefused),
        (status == 403, AccessForbidden),
        (status == 404, DiskLost),
        (status == 407, ProxyRefused),
        (status == 408 or status >= 500, TargetUnavailable),
    )
    return next((kind for holds, kind in rules if holds), TargetRefused)


def sdk_failure(err: Exception, *, what: str) -> AgentError:
    """Return the error for what google-auth or google-cloud-storage raised."""
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - loaded with the SDK only
    from google.auth import exceptions as auth  # noqa: PLC0415

    first = str(err).splitlines()[0][:500] if str(err) else type(err).__name__
    text = f"{what}: {first}"
    if isinstance(err, GoogleAPICallError):
        errors = err.errors or [{}]
        code = str(errors[0].get("reason", "")) if isinstance(errors[0], dict) else ""
        headers = dict(getattr(err.response, "headers", {}) or {})
        return failure(int(err.code or 0), code, err.message or "", headers, what=what)
    if "CERTIFICATE_VERIFY_FAILED" in str(err):
        return TlsRefused(text)
    if isinstance(err, auth.TransportError):
        return TargetUnavailable(text)
    if isinstance(err, auth.GoogleAuthError):
        return (
            TargetUnavailable(text) if getattr(err, "retryable", False) else CredentialRefused(text)
        )
    return TargetUnavailable(text)
