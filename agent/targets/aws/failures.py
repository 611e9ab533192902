"""From AWS' error codes, and botocore's exceptions, to the error class that decides what happens next.

Decides on codes, never on text. Sources: "Error codes for the Amazon EC2 API", the EBS direct and STS references.
"""

from collections.abc import Mapping
from typing import Any

from agent.errors import AgentError, Retryable, Throttled, TooSlow
from agent.targets.errors import (
    AccessForbidden,
    ChecksumRefused,
    ClockRefused,
    CredentialRefused,
    DiskLost,
    QuotaExceeded,
    RegionUnknown,
    TargetNotFound,
    TargetRefused,
    TargetUnavailable,
)
from agent.targets.http.failures import ProxyRefused, TlsRefused, retry_after

_CLASSES: dict[type[AgentError], frozenset[str]] = {
    Throttled: frozenset(
        {
            "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown",
            "Throttling", "ThrottlingException", "TooManyRequestsException", "EC2ThrottledException",
            "BandwidthLimitExceeded", "ConcurrentLimitExceededException",
        }
    ),
    TooSlow: frozenset({"WRITE_REQUEST_TIMEOUT", "RequestTimeout"}),
    ClockRefused: frozenset({"RequestExpired", "RequestTimeTooSkewed", "InvalidSignatureException"}),
    CredentialRefused: frozenset(
        {
            "AuthFailure", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
            "InvalidAccessKeyId", "InvalidClientTokenId", "MissingAuthenticationToken",
            "MissingAuthenticationTokenException", "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        }
    ),
    AccessForbidden: frozenset(
        {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"}
    ),
    QuotaExceeded: frozenset(
        {
            "SnapshotLimitExceeded", "ConcurrentSnapshotLimitExceeded", "ResourceLimitExceeded",
            "ServiceQuotaExceededException", "VolumeLimitExceeded", "InstanceLimitExceeded",
            "VcpuLimitExceeded", "AMIQuotaExceeded",
        }
    ),
    ChecksumRefused: frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "INVALID_BLOCK"}),
    TargetUnavailable: frozenset(
        {
            "CONFLICTING_BLOCK_UPDATE", "InternalError", "Unavailable",
            "InternalServerException", "ServiceUnavailable", "ConflictException",
        }
    ),
    DiskLost: frozenset(
        {
            "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", "InvalidSnapshot.NotFound",
            "NoSuchUpload", "NoSuchKey", "404",  # what HEAD has instead of a code
        }
    ),
    TargetNotFound: frozenset(
        {
            "InvalidAMIID.NotFound", "InvalidInstanceID.NotFound", "InvalidSubnetID.NotFound",
            "InvalidVolume.NotFound", "InvalidGroup.NotFound", "NoSuchBucket", "InvalidKMSKey.NotFound",
        }
    ),
}  # fmt: skip
_BY_CODE = {code: kind for kind, codes in _CLASSES.items() for code in codes}


def failure(
    status: int,
    code: str,
    message: str,
    *,
    what: str,
    reason: str = "",
    request_id: str = "",
    headers: Mapping[str, str] | None = None,
) -> AgentError:
    """Return the error for an answer that is no success.

    Args:
        status: HTTP status.
        code: The service's error code.
        message: Its message; shown, never decided on.
        what: What was asked ("ec2:RegisterImage", "write block 3 of snap-1").
        reason: The finer code that EBS direct has.
        request_id: For the evidence.
        headers: For Retry-After.
    """
    name = f"{code}/{reason}" if reason else code or "without code"
    text = f"{what}: HTTP {status} {name}" + (f": {message}" if message else "")
    kind = _BY_CODE.get(reason) or _BY_CODE.get(code) or _by_status(status)
    fields: dict[str, Any] = {"status": status, "service_code": name, "request_id": request_id}
    if issubclass(kind, Retryable):
        return kind(text, retry_after=retry_after(headers or {}), **fields)
    return kind(text, **fields)


def _by_status(status: int) -> type[AgentError]:
    if status in (429, 503):
        return Throttled
    if status == 401:
        return CredentialRefused
    if status == 403:
        return AccessForbidden
    if status == 407:
        return ProxyRefused
    return TargetUnavailable if status == 408 or status >= 500 else TargetRefused


def sdk_failure(err: Exception, *, what: str) -> AgentError:
    """Return the error for what boto3 raised."""
    from botocore import exceptions as sdk  # noqa: PLC0415 - loaded with boto3 only

    text = f"{what}: {str(err).splitlines()[0][:500]}"
    if isinstance(err, sdk.ClientError):
        told, meta = err.response.get("Error", {}), err.response.get("ResponseMetadata", {})
        return failure(
            int(meta.get("HTTPStatusCode", 0)),
            str(told.get("Code", "")),
            str(told.get("Message", "")),
            what=what,
            reason=str(err.response.get("Reason", "")),
            request_id=str(meta.get("RequestId", "")),
            headers=meta.get("HTTPHeaders", {}),
        )
    rules: tuple[tuple[tuple[type[Exception], ...], type[AgentError]], ...] = (
        ((sdk.SSLError,), TlsRefused),
        ((sdk.ProxyConnectionError,), TargetUnavailable),
        (
            (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError,
             sdk.ProfileNotFound, sdk.MetadataRetrievalError),
            CredentialRefused,
        ),
        ((sdk.NoRegionError, sdk.InvalidRegionError, sdk.UnknownRegionError), RegionUnknown),
        ((sdk.ParamValidationError, sdk.ValidationError), TargetRefused),
    )  # fmt: skip
    kinds = (kind for classes, kind in rules if isinstance(err, classes))
    return next(kinds, TargetUnavailable)(text)  # nothing fits an answer that is garbage
