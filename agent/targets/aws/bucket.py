"""A bucket of S3 as `multipart.Bucket` sees it, and the control calls on its objects.

"Uploading and copying objects using multipart upload" and "Checking object integrity" of the S3 user guide: each part
is checked with the CRC-32C that is sent along, and S3 joins them to that of the whole object (FULL_OBJECT). Path-style
addresses: private endpoints and names with dots need no certificate of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import google_crc32c

from agent.errors import AgentError
from agent.targets.archiveobject import Stored
from agent.targets.aws.control import AwsControl
from agent.targets.aws.failures import failure
from agent.targets.aws.sigv4 import Keys, Signer
from agent.targets.errors import CredentialRefused, DiskLost, TargetNotFound
from agent.targets.multipart import encoded_crc

CRC = "x-amz-checksum-crc32c"
META = "x-amz-meta-"
JOINED = {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"}
"""Headers that an upload is begun with."""


@dataclass(slots=True)
class S3Bucket:
    """One bucket.

    Attributes:
        control: Whose credentials sign.
        endpoint: Of S3 in the region, without a slash at its end.
        name: Of the bucket.
        signer: For the region.
        now_ms: Signed time.
    """

    control: AwsControl
    endpoint: str
    name: str
    signer: Signer
    now_ms: Callable[[], int]
    _last: Keys | None = None

    @property
    def url(self) -> str:
        """See `multipart.Bucket`."""
        return f"{self.endpoint}/{self.name}"

    def authorize(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, str]:
        """See `multipart.Bucket`."""
        url = urlsplit(self.url)
        self._last = self.control.keys()
        return self.signer.sign(
            method,
            url.netloc,
            url.path + path,
            query=query,
            headers=headers,
            keys=self._last,
            now_ms=self.now_ms(),
        )

    def refused(self) -> None:
        """See `multipart.Bucket`."""
        if self._last is None or not self.control.refused(self._last):
            raise CredentialRefused(f"S3 refuses the job's credential for bucket {self.name}")

    def failure(
        self, status: int, code: str, message: str, headers: Mapping[str, str], what: str
    ) -> AgentError:
        """See `multipart.Bucket`."""
        request = headers.get("x-amz-request-id", "")
        return failure(status, code, message, what=what, request_id=request, headers=headers)

    def checksum_headers(self, data: bytes) -> dict[str, str]:
        """See `multipart.Bucket`."""
        return {CRC: encoded_crc(int(google_crc32c.value(data)))}

    def checksum_differs(self, sent: Mapping[str, str], answered: Mapping[str, str]) -> bool:
        """See `multipart.Bucket`."""
        told = answered.get(CRC, "")
        return bool(told) and told != sent[CRC]


async def state_of(control: AwsControl, bucket: str, key: str) -> Stored | None:
    """Return an object's state, None if there is none."""
    try:
        found = await control.call(
            "s3",
            "head_object",
            Bucket=bucket,
            Key=key,
            ChecksumMode="ENABLED",
            permission="s3:GetObject",
            needs=("ContentLength", "ETag"),
        )
    except (DiskLost, TargetNotFound):
        return None
    return Stored(
        int(found["ContentLength"]),
        str(found["ETag"]),
        _whole_crc(found),
        {str(key).lower(): str(value) for key, value in found.get("Metadata", {}).items()},
    )


def _whole_crc(found: Mapping[str, object]) -> str:
    """Return the CRC-32C of the whole object, "" where the service has only one over its parts' checksums."""
    return str(found["ChecksumCRC32C"]) if found.get("ChecksumType") == "FULL_OBJECT" else ""


async def keys_in(control: AwsControl, bucket: str, prefix: str, *, most: int = 1000) -> list[str]:
    """Return the first keys of a bucket that begin so; `target.not-found` if there is no such bucket."""
    found = await control.call(
        "s3",
        "list_objects_v2",
        Bucket=bucket,
        Prefix=prefix,
        MaxKeys=most,
        permission="s3:ListBucket",
    )
    return [str(one["Key"]) for one in found.get("Contents", [])]


async def delete(control: AwsControl, bucket: str, key: str) -> None:
    """Delete an object; one that is gone is no error."""
    await control.call("s3", "delete_object", Bucket=bucket, Key=key)
