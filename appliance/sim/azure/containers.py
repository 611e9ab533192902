"""Containers of the simulated storage account: create, describe, delete, list, and list of blobs."""

import re
from email.utils import formatdate
from xml.sax.saxutils import escape

from appliance.sim.azure import pageblob
from appliance.sim.azure.sas import Resource
from appliance.sim.azure.state import Container
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.call import Call, Refusal, Reply

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}")

_OPERATIONS = {
    ("PUT", "container", ""): "container.create",
    ("GET", "container", ""): "container.head",
    ("HEAD", "container", ""): "container.head",
    ("DELETE", "container", ""): "container.delete",
    ("GET", "container", "list"): "container.list",
    ("GET", "", "list"): "service.list",
    ("GET", "account", "properties"): "service.account",
    ("HEAD", "account", "properties"): "service.account",
}
_NEEDS = {
    "container.create": "cw",
    "container.delete": "d",
    "container.list": "l",
    "service.list": "l",
}


class Containers:
    """The operations on containers and on the account itself."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def operation(self, call: Call, resource: Resource) -> str:
        """Name the operation."""
        key = (call.method, call.query.get("restype", ""), call.query.get("comp", ""))
        return _OPERATIONS.get(key, f"{resource.kind}.unknown")

    def needs(self, operation: str) -> str:
        """Return the permissions of which one is needed."""
        return _NEEDS.get(operation, "r")

    def require(self, name: str) -> None:
        """Raise 404 when there is no such container."""
        if name not in self._vault.state.containers:
            raise Refusal(404, "ContainerNotFound", "The specified container does not exist.")

    def answer(self, call: Call, resource: Resource, operation: str) -> Reply:
        """Do it."""
        match operation:
            case "service.list":
                return self._list_containers(call)
            case "service.account":
                return Reply(
                    200, {"x-ms-sku-name": "Standard_LRS", "x-ms-account-kind": "StorageV2"}
                )
            case "container.create":
                return self._create(call, resource.container)
        if operation not in ("container.head", "container.delete", "container.list"):
            raise Refusal(
                501, "FeatureNotSupported", f"{call.method} with this query is not simulated."
            )
        self.require(resource.container)
        if operation == "container.delete":
            return self._delete(resource.container)
        if operation == "container.list":
            return self._list_blobs(call, resource.container)
        return Reply(200, self._headers(resource.container))

    def _headers(self, name: str) -> dict[str, str]:
        created = self._vault.state.containers[name].created
        return {
            "ETag": f'"0x8D{int(created * 10_000_000) & 0xFFFFFFFFFFFFF:013X}"',
            "Last-Modified": formatdate(created, usegmt=True),
            "x-ms-lease-state": "available",
            "x-ms-lease-status": "unlocked",
        }

    def _create(self, call: Call, name: str) -> Reply:
        if not _NAME.fullmatch(name):
            raise Refusal(
                400,
                "InvalidResourceName",
                "The specified resource name contains invalid characters.",
            )
        if name in self._vault.state.containers:
            raise Refusal(409, "ContainerAlreadyExists", "The specified container already exists.")
        self._vault.state.containers[name] = Container(created=call.now)
        self._vault.save()
        return Reply(201, self._headers(name))

    def _delete(self, name: str) -> Reply:
        del self._vault.state.containers[name]
        for key in [key for key in self._vault.blobs if key.startswith(f"{name}/")]:
            self._vault.drop_blob(key)
        self._vault.save()
        return Reply(202)

    def _list_containers(self, call: Call) -> Reply:
        prefix = call.query.get("prefix", "")
        entries = "".join(
            f"<Container><Name>{escape(name)}</Name><Properties>{_elements(self._headers(name))}"
            "</Properties></Container>"
            for name in sorted(self._vault.state.containers)
            if name.startswith(prefix)
        )
        return _listing(f"<Containers>{entries}</Containers><NextMarker/>", "")

    def _list_blobs(self, call: Call, container: str) -> Reply:
        start = f"{container}/{call.query.get('prefix', '')}"
        entries = "".join(
            _entry(key.partition("/")[2], self._vault.blobs[key])
            for key in sorted(self._vault.blobs)
            if key.startswith(start)
        )
        return _listing(f"<Blobs>{entries}</Blobs><NextMarker/>", f' ContainerName="{container}"')


def _entry(name: str, blob: PageBlob) -> str:
    found = pageblob.versions(blob) | {
        "Content-Length": str(blob.size),
        "Content-Type": blob.record.content.get("Content-Type", "application/octet-stream"),
        "x-ms-blob-sequence-number": str(blob.record.sequence),
        "BlobType": "PageBlob",
        "LeaseStatus": "unlocked",
        "LeaseState": "available",
    }
    meta = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.record.metadata.items())
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties>{_elements(found)}</Properties>"
        f"<Metadata>{meta}</Metadata></Blob>"
    )


def _elements(headers: dict[str, str]) -> str:
    return "".join(
        f"<{'Etag' if name == 'ETag' else name}>{escape(value)}</{'Etag' if name == 'ETag' else name}>"
        for name, value in headers.items()
    )


def _listing(inner: str, attributes: str) -> Reply:
    body = pageblob.xml(f"<EnumerationResults{attributes}>{inner}</EnumerationResults>")
    return Reply(200, {"Content-Type": "application/xml"}, body)
