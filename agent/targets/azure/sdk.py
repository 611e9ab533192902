"""The control calls on page blobs, by azure-storage-blob on our own aiohttp session.

Its default retries wait 15 s at first; here it tries three times within seconds, and our classes decide the rest.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from agent.errors import AgentError
from agent.targets.azure.credentials import AccountKey, Credential, GivenSas
from agent.targets.azure.entra import TokenSource
from agent.targets.azure.failures import failure
from agent.targets.errors import DiskLost, TargetRefused, TargetUnavailable
from agent.targets.http.failures import TlsRefused

T = TypeVar("T")

COPY_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class BlobState:
    """What the service says of a blob.

    Attributes:
        size: Bytes, footer included.
        metadata: Its metadata.
        object_id: URL and creation time: a new blob of the same name has another one.
        copying: Whether a server-side copy into it is pending.
    """

    size: int
    metadata: dict[str, str]
    object_id: str
    copying: bool


class BlobControl:
    """Control calls on the blobs of one container."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        container: str,
        credential: Any,
    ) -> None:
        from azure.core.pipeline.transport import AioHttpTransport  # noqa: PLC0415 - 0.5 s to import
        from azure.storage.blob.aio import ContainerClient  # noqa: PLC0415 - 0.5 s to import

        self._client = ContainerClient(
            endpoint,
            container,
            credential=credential,
            transport=AioHttpTransport(session=session, session_owner=False),
            retry_total=3,
            initial_backoff=1,
            increment_base=2,
        )

    async def state(self, blob: str) -> BlobState | None:
        """Return the blob's state, None if there is none; `target.not-found` if the container is missing."""
        client = self._client.get_blob_client(blob)
        try:
            found = await _call(client.get_blob_properties(), f"look at blob {blob}")
        except DiskLost:
            return None
        created = found.creation_time.isoformat() if found.creation_time else ""
        return BlobState(
            size=found.size,
            metadata=dict(found.metadata or {}),
            object_id=f"{_bare(client.url)}#{created}",
            copying=found.copy.status == "pending",
        )

    async def create(self, blob: str, size: int, metadata: dict[str, str]) -> None:
        """Create an empty page blob, in the place of whatever has the name."""
        client = self._client.get_blob_client(blob)
        await _call(client.create_page_blob(size, metadata=metadata), f"create blob {blob}")

    async def set_metadata(self, blob: str, metadata: dict[str, str]) -> None:
        """Replace the metadata."""
        client = self._client.get_blob_client(blob)
        await _call(client.set_blob_metadata(metadata), f"set metadata of blob {blob}")

    async def delete(self, blob: str) -> None:
        """Delete; a blob that is gone is no error."""
        client = self._client.get_blob_client(blob)
        try:
            await _call(client.delete_blob(), f"delete blob {blob}")
        except DiskLost:
            return

    async def begin_copy(self, source_url: str, blob: str, metadata: dict[str, str]) -> None:
        """Start a server-side copy over `blob`."""
        client = self._client.get_blob_client(blob)
        what = f"copy over blob {blob}"
        answer = await _call(client.start_copy_from_url(source_url, metadata=metadata), what)
        if answer.get("copy_status") not in ("pending", "success"):
            msg = f"{what}: the service answers {answer.get('copy_status')}"
            raise TargetRefused(msg)


def sdk_credential(credential: Credential, tokens: TokenSource | None, account: str) -> Any:
    """Return a credential as azure-core wants it."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential  # noqa: PLC0415

    if isinstance(credential, AccountKey):
        return AzureNamedKeyCredential(account, credential.key.reveal())
    if isinstance(credential, GivenSas):
        return AzureSasCredential(credential.query.reveal())
    return _Bearer(tokens) if tokens is not None else None


class _Bearer:
    """Gives azure-core the tokens of our TokenSource, which has its own owner."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    async def get_token(self, *scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken  # noqa: PLC0415

        return AccessToken(await self._tokens.token(scopes[0]), 2**31)

    async def close(self) -> None:
        """Nothing of its own."""

    async def __aenter__(self) -> "_Bearer":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


async def _call(request: Awaitable[T], what: str) -> T:
    """Await an SDK call; its exceptions do not leave this file."""
    from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415

    try:
        return await request
    except HttpResponseError as err:
        raise _answered(err, what) from err
    except AzureError as err:
        text = f"{what}: {_first_line(err)}"
        raise (
            TlsRefused(text) if "CERTIFICATE_VERIFY_FAILED" in text else TargetUnavailable(text)
        ) from err
    except ValueError as err:  # an account key that is no base64
        msg = f"{what}: the credential cannot be used: {_first_line(err)}"
        raise TargetRefused(msg) from err


def _answered(err: Any, what: str) -> AgentError:
    headers = dict(err.response.headers) if err.response is not None else {}
    code = str(getattr(err, "error_code", None) or headers.get("x-ms-error-code") or "")
    code = code.removeprefix("StorageErrorCode.")
    return failure(err.status_code or 0, code, _first_line(err), headers, what=what)


def _first_line(err: Exception) -> str:
    return str(err).split("\n", maxsplit=1)[0][:300]


def _bare(url: str) -> str:
    return url.split("?", maxsplit=1)[0]
