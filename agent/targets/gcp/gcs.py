"""Cloud Storage: the bucket as `multipart.Bucket` sees it, and its control calls by the official SDK.

The service checks each part with the CRC-32C that is sent along and tells its own in the answer; both are compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import google_crc32c

from agent.errors import AgentError
from agent.targets.archiveobject import Stored
from agent.targets.errors import DiskLost
from agent.targets.gcp.failures import failure, sdk_failure
from agent.targets.gcp.tokens import TokenSource
from agent.targets.multipart import encoded_crc
from agent.threads import Pool, run_blocking

T = TypeVar("T")

PUBLIC_STORAGE = "https://storage.googleapis.com"
_HASH = "x-goog-hash"


@dataclass(slots=True)
class GcsBucket:
    """One bucket over the XML API.

    Attributes:
        endpoint: Of the service, without a slash at its end.
        name: Of the bucket.
        tokens: Of the job.
    """

    endpoint: str
    name: str
    tokens: TokenSource
    _last: str = ""

    @property
    def url(self) -> str:
        """See `multipart.Bucket`."""
        return f"{self.endpoint}/{self.name}"

    def authorize(
        self,
        method: str,  # noqa: ARG002 - a token is for every request
        path: str,  # noqa: ARG002
        query: Mapping[str, str],  # noqa: ARG002
        headers: Mapping[str, str],
    ) -> dict[str, str]:
        """See `multipart.Bucket`."""
        self._last = self.tokens.token()
        return {**headers, "Authorization": f"Bearer {self._last}"}

    def refused(self) -> None:
        """See `multipart.Bucket`."""
        self.tokens.refused(self._last)

    def failure(
        self, status: int, code: str, message: str, headers: Mapping[str, str], what: str
    ) -> AgentError:
        """See `multipart.Bucket`."""
        return failure(status, code, message, headers, what=what)

    def checksum_headers(self, data: bytes) -> dict[str, str]:
        """See `multipart.Bucket`."""
        return {_HASH: f"crc32c={encoded_crc(int(google_crc32c.value(data)))}"}

    def checksum_differs(self, sent: Mapping[str, str], answered: Mapping[str, str]) -> bool:
        """See `multipart.Bucket`."""
        told = crc_in(answered)
        return bool(told) and told != crc_in(sent)


def crc_in(headers: Mapping[str, str]) -> str:
    """Return the CRC-32C of `x-goog-hash: crc32c=..,md5=..`, "" if there is none."""
    for part in headers.get(_HASH, "").split(","):
        name, _, value = part.strip().partition("=")
        if name == "crc32c":
            return value
    return ""


class GcsControl:
    """Control calls on one bucket by google-cloud-storage, in a bounded pool; retries are the caller's."""

    def __init__(self, bucket: GcsBucket, project: str) -> None:
        """Connect nothing yet."""
        self._bucket = bucket
        self._project = project
        self.pool = Pool("gcs", 2)
        """For what else blocks."""

    async def location(self) -> str:
        """Return where the bucket is; `target.not-found` if there is none."""

        def look(bucket: Any) -> str:
            bucket.reload(retry=None)
            return str(bucket.location)

        return await self._call(f"look at bucket {self._bucket.name}", look)

    async def state(self, key: str) -> Stored | None:
        """Return an object's state, None if there is none."""

        def look(bucket: Any) -> Stored:
            blob = bucket.blob(key)
            blob.reload(retry=None)
            return Stored(
                int(blob.size), str(blob.generation), str(blob.crc32c), dict(blob.metadata or {})
            )

        try:
            return await self._call(f"look at object {key}", look)
        except DiskLost:
            return None

    async def delete(self, key: str, generation: str) -> None:
        """Delete this very object; one that is gone is no error."""

        def delete(bucket: Any) -> None:
            bucket.blob(key).delete(if_generation_match=int(generation), retry=None)

        try:
            await self._call(f"delete object {key}", delete)
        except DiskLost:
            return

    async def permissions(self, wanted: list[str]) -> list[str]:
        """Return those of the permissions on the bucket that the job has."""

        def test(bucket: Any) -> list[str]:
            return [str(one) for one in bucket.test_iam_permissions(wanted, retry=None)]

        return await self._call(f"test permissions on bucket {self._bucket.name}", test)

    async def token(self) -> str:
        """Return an access token."""
        return await run_blocking(self.pool, self._bucket.tokens.token)

    async def forget(self, token: str) -> None:
        """Forget a token that a service refused."""
        await run_blocking(self.pool, lambda: self._bucket.tokens.refused(token))

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()

    async def _call(self, what: str, work: Callable[[Any], T]) -> T:
        return await run_blocking(self.pool, lambda: self._once(what, work))

    def _once(self, what: str, work: Callable[[Any], T]) -> T:
        from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - 0.2 s to import
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
        from google.auth.transport.requests import AuthorizedSession  # noqa: PLC0415
        from google.cloud import storage  # noqa: PLC0415
        from google.oauth2.credentials import Credentials  # noqa: PLC0415
        from requests import RequestException  # noqa: PLC0415

        tokens = self._bucket.tokens
        token = tokens.token()
        credentials = Credentials(token=token)
        session = AuthorizedSession(credentials, refresh_status_codes=())
        way = tokens.http_session()
        session.trust_env, session.verify, session.proxies = False, way.verify, way.proxies
        try:
            with session:
                client = storage.Client(
                    project=self._project,
                    credentials=credentials,
                    _http=session,
                    client_options={"api_endpoint": self._bucket.endpoint},
                )
                return work(client.bucket(self._bucket.name))
        except (GoogleAPICallError, GoogleAuthError, RequestException) as err:
            failed = sdk_failure(err, what=what)
            if failed.code == "target.credential-refused":
                tokens.refused(token)
            raise failed from err
