"""AccountPlane: the Blob service of one storage account, page blobs only, addressed as `/account/container/blob`."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.sax.saxutils import escape

from appliance.sim.azure import pageblob, storage
from appliance.sim.azure.access import AccountAccess
from appliance.sim.azure.conditions import check_conditions, invalid_header, whole_number
from appliance.sim.azure.containers import Containers
from appliance.sim.azure.copyblob import Copies
from appliance.sim.azure.sas import Resource
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

SEQUENCE_MOST = (1 << 63) - 1
BLOB_NAME_MOST = 1024
_METADATA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CONTENT_HEADERS = {
    "x-ms-blob-cache-control": "Cache-Control",
    "x-ms-blob-content-disposition": "Content-Disposition",
    "x-ms-blob-content-encoding": "Content-Encoding",
    "x-ms-blob-content-language": "Content-Language",
    "x-ms-blob-content-md5": "Content-MD5",
    "x-ms-blob-content-type": "Content-Type",
}

_BLOB_OPERATIONS = {
    ("GET", ""): "get",
    ("HEAD", ""): "head",
    ("PUT", ""): "create",
    ("DELETE", ""): "delete",
    ("GET", "pagelist"): "get-page-ranges",
    ("GET", "metadata"): "get-metadata",
    ("HEAD", "metadata"): "get-metadata",
    ("PUT", "metadata"): "set-metadata",
    ("PUT", "properties"): "set-properties",
}
_NEEDS = {
    "get": "r",
    "head": "r",
    "create": "cw",
    "copy": "cw",
    "delete": "d",
    "get-page-ranges": "r",
    "get-metadata": "r",
    "set-metadata": "w",
    "set-properties": "w",
    "put-page": "w",
    "clear-page": "w",
}


class AccountPlane:
    """The account's containers and blobs; every request is authorized before it learns anything."""

    def __init__(
        self, vault: Vault, access: AccountAccess, stats: Stats, *, copy_seconds: float = 0.0
    ) -> None:
        self._vault = vault
        self._access = access
        self._stats = stats
        self._containers = Containers(vault)
        self._copies = Copies(vault, access, copy_seconds)
        self._handlers: dict[str, Callable[[Call, str], Reply]] = {
            "create": self._create,
            "copy": self._copy,
            "delete": self._delete,
            "set-metadata": self._set_metadata,
            "set-properties": self._set_properties,
        }

    def operation(self, call: Call) -> str:
        """Name the operation: blob.*, container.*, service.* or blob.unknown."""
        resource = split(call.path)
        comp = call.query.get("comp", "")
        if resource.kind != "blob":
            return self._containers.operation(call, resource)
        if call.method == "PUT" and comp == "page":
            return f"blob.{pageblob.write_operation(call)}"
        if call.method == "PUT" and not comp and call.header("x-ms-copy-source"):
            return "blob.copy"
        return f"blob.{_BLOB_OPERATIONS.get((call.method, comp), 'unknown')}"

    async def answer(self, call: Call) -> Reply:
        """Authorize and do."""
        storage.check_version(call)
        resource = split(call.path)
        operation = self.operation(call)
        if resource.kind != "blob":
            self._access.require(call, resource, self._containers.needs(operation))
            return storage.finish(call, self._containers.answer(call, resource, operation))
        name = operation.removeprefix("blob.")
        if name not in _NEEDS:
            raise Refusal(
                501, "FeatureNotSupported", f"{call.method} with this query is not simulated."
            )
        self._access.require(call, resource, _NEEDS[name])
        return storage.finish(call, await self._blob(call, resource, name))

    def refuse(self, call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        return storage.refuse(call, refusal)

    async def _blob(self, call: Call, resource: Resource, name: str) -> Reply:
        self._containers.require(resource.container)
        key = f"{resource.container}/{resource.blob}"
        if "snapshot" in call.query or "versionid" in call.query:
            raise Refusal(501, "FeatureNotSupported", "Snapshots and versions are not simulated.")
        if name in self._handlers:
            return self._handlers[name](call, key)
        blob = self._find(key)
        if name in ("put-page", "clear-page"):
            return await pageblob.put_page(call, blob, self._stats)
        if name == "get":
            return pageblob.get(call, blob, self._stats)
        if name == "get-page-ranges":
            return pageblob.page_ranges(call, blob)
        return pageblob.head(call, blob)

    def _find(self, key: str) -> PageBlob:
        blob = self._vault.blobs.get(key)
        if blob is None:
            raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
        return blob

    def _create(self, call: Call, key: str) -> Reply:
        kind = call.header("x-ms-blob-type")
        if kind != "PageBlob":
            if not kind:
                raise pageblob.missing_header("x-ms-blob-type")
            raise Refusal(
                501, "FeatureNotSupported", f"Blob type {kind} is not simulated, only PageBlob."
            )
        if call.length:
            raise invalid_header(
                "Content-Length", str(call.length), "a page blob is created without a body"
            )
        size = pageblob.check_size(call.header("x-ms-blob-content-length"))
        _check_name(key.partition("/")[2])
        self._check_replaced(call, key)
        blob = self._vault.new_blob(size, call.now)
        blob.record.content = content_headers(call)
        blob.record.metadata = metadata(call)
        blob.record.sequence = sequence_number(call, 0)
        self._vault.put_blob(key, blob)
        return Reply(201, pageblob.written(blob))

    def _copy(self, call: Call, key: str) -> Reply:
        _check_name(key.partition("/")[2])
        self._check_replaced(call, key)
        return self._copies.start(call, key, metadata(call))

    def _check_replaced(self, call: Call, key: str) -> None:
        old = self._vault.blobs.get(key)
        if old is None:
            if call.header("If-Match"):
                raise Refusal(412, "ConditionNotMet", "The condition specified is not met.")
            return
        if call.header("If-None-Match") == "*":
            raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
        if "sig" in call.query and "w" not in call.query.get("sp", "w"):
            raise Refusal(
                403,
                "UnauthorizedBlobOverwrite",
                "This request is not authorized to perform blob overwrites.",
            )
        pageblob.check_not_copying(call, old)
        check_conditions(call, etag=old.etag, modified=old.record.modified)

    def _delete(self, call: Call, key: str) -> Reply:
        blob = self._find(key)
        check_conditions(call, etag=blob.etag, modified=blob.record.modified)
        self._vault.drop_blob(key)
        return Reply(202, {"x-ms-delete-type-permanent": "true"})

    def _set_metadata(self, call: Call, key: str) -> Reply:
        blob = self._find(key)
        check_conditions(call, etag=blob.etag, modified=blob.record.modified)
        blob.record.metadata = metadata(call)
        blob.touch(call.now)
        self._vault.save()
        return Reply(200, pageblob.versions(blob) | {"x-ms-request-server-encrypted": "true"})

    def _set_properties(self, call: Call, key: str) -> Reply:
        blob = self._find(key)
        check_conditions(call, etag=blob.etag, modified=blob.record.modified)
        length, action = (
            call.header("x-ms-blob-content-length"),
            call.header("x-ms-sequence-number-action"),
        )
        if length:
            blob.resize(pageblob.check_size(length), call.now)
        if action:
            blob.record.sequence = new_sequence(call, action.lower(), blob.record.sequence)
        if not length and not action:
            blob.record.content = content_headers(call)
        blob.touch(call.now)
        self._vault.save()
        return Reply(
            200, pageblob.versions(blob) | {"x-ms-blob-sequence-number": str(blob.record.sequence)}
        )


def split(path: str) -> Resource:
    """Return what `/account[/container[/blob]]` addresses."""
    parts = unquote(path).split("/", 3)
    container = parts[2] if len(parts) > 2 else ""
    blob = parts[3] if len(parts) > 3 else ""
    kind = "blob" if blob else "container" if container else "service"
    return Resource(kind, container, blob)


def _check_name(name: str) -> None:
    if len(name) > BLOB_NAME_MOST or not name.isprintable():
        raise Refusal(
            400, "InvalidResourceName", "The specified resource name contains invalid characters."
        )


def metadata(call: Call) -> dict[str, str]:
    """Return the request's x-ms-meta- headers.

    Raises:
        Refusal: 400 InvalidMetadata for a name that is no C# identifier, EmptyMetadataKey.
    """
    found = {}
    for header, value in call.headers.items():
        if not header.lower().startswith("x-ms-meta-"):
            continue
        name = header[len("x-ms-meta-") :]
        if not _METADATA_NAME.fullmatch(name) or not value.isascii():
            raise Refusal(
                400,
                "InvalidMetadata",
                "The metadata specified is invalid. It has characters that are not permitted.",
                detail=escape(name),
            )
        found[name] = value
    return found


def content_headers(call: Call) -> dict[str, str]:
    """Return the x-ms-blob-* content headers under the names that reads answer with."""
    found = {name: call.header(sent) for sent, name in CONTENT_HEADERS.items() if call.header(sent)}
    for name, value in found.items():
        if not value.isascii():
            raise invalid_header(name, value, "not ASCII")
    return found


def sequence_number(call: Call, default: int) -> int:
    """Return x-ms-blob-sequence-number."""
    text = call.header("x-ms-blob-sequence-number")
    if not text:
        return default
    number = whole_number(text)
    if number is None or number > SEQUENCE_MOST:
        raise invalid_header("x-ms-blob-sequence-number", text, f"0 to {SEQUENCE_MOST}")
    return number


def new_sequence(call: Call, action: str, old: int) -> int:
    """Return the sequence number after x-ms-sequence-number-action."""
    if action == "increment":
        return old + 1
    if action not in ("max", "update"):
        raise invalid_header("x-ms-sequence-number-action", action, "max, update or increment")
    given = sequence_number(call, -1)
    if given < 0:
        raise pageblob.missing_header("x-ms-blob-sequence-number")
    return max(given, old) if action == "max" else given
