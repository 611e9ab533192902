"""ComputePlane: images of Compute Engine and the operations that make them; and what a caller may do in the project.

`images.insert` answers at once with an operation; a bad archive makes the operation fail, as on the real service.
Fields that are not simulated are refused by name.
"""

import re
import shutil
from datetime import UTC, datetime
from typing import Any

import msgspec

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.gcp.archive import BadArchive, unpack
from appliance.sim.gcp.jsonplane import json_error, json_reply
from appliance.sim.gcp.shelf import GcpShelf
from appliance.sim.gcp.state import Image, Operation
from appliance.sim.gcp.tokens import Tokens

PREFIXES = ("/compute/v1/", "/v1/projects/")
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SOURCE = re.compile(
    r"https?://[^/]+/(?:storage/v1/b/)?([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])/(?:o/)?(.+)"
)
_FEATURES = frozenset(
    {
        "BARE_METAL_LINUX_COMPATIBLE", "GVNIC", "IDPF", "MULTI_IP_SUBNET", "SECURE_BOOT",
        "SEV_CAPABLE", "SEV_LIVE_MIGRATABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE",
        "SUSPEND_RESUME_COMPATIBLE", "TDX_CAPABLE", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE",
        "WINDOWS",
    }
)  # fmt: skip
_KNOWN = frozenset(
    {
        "name", "description", "family", "labels", "rawDisk", "guestOsFeatures", "licenses",
        "storageLocations", "imageEncryptionKey", "architecture", "sourceType", "diskSizeGb",
    }
)  # fmt: skip


class ComputePlane:
    """Images of one project."""

    def __init__(self, shelf: GcpShelf, tokens: Tokens, *, seconds: float) -> None:
        self._shelf = shelf
        self._tokens = tokens
        self._seconds = seconds
        self.url = ""

    def operation(self, call: Call) -> str:
        """Name the operation: gce.*."""
        path = call.path
        if path.endswith(":testIamPermissions"):
            return "gce.test-permissions"
        if "/global/operations/" in path:
            return "gce.get-operation"
        kind = {"GET": "get-image", "POST": "insert-image", "DELETE": "delete-image"}
        return (
            f"gce.{kind.get(call.method, 'unknown')}" if "/global/images" in path else "gce.unknown"
        )

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        body = b"".join(await call.body.read())
        self._tokens.check(call)
        if call.path.endswith(":testIamPermissions"):
            wanted = _object(body).get("permissions", [])
            return json_reply(200, {"permissions": self._tokens.granted(wanted)})
        pieces = call.path.removeprefix("/compute/v1/").split("/")
        project = self._shelf.state.identity.project
        if pieces[:2] != ["projects", project] or pieces[2:3] != ["global"]:
            message = f"The resource '{call.path}' was not found"
            raise Refusal(404, "notFound", message)
        return await self._image_call(call, pieces[3:], body)

    async def _image_call(self, call: Call, rest: list[str], body: bytes) -> Reply:
        reply: Reply
        match (call.method, rest):
            case ("POST", ["images"]):
                reply = await self._insert(_object(body), call.now)
            case ("GET", ["images"]):
                self._tokens.allow("compute.images.list", "the project")
                images = [self._resource(i, call.now) for i in self._shelf.state.images.values()]
                reply = json_reply(200, {"kind": "compute#imageList", "items": images})
            case ("GET", ["images", name]):
                self._tokens.allow("compute.images.get", name)
                reply = json_reply(200, self._resource(self._image(name), call.now))
            case ("DELETE", ["images", name]):
                reply = self._delete(name, call.now)
            case ("POST", ["images", name, "setLabels"]):
                reply = self._set_labels(name, _object(body), call.now)
            case ("GET", ["operations", name]):
                self._tokens.allow("compute.globalOperations.get", name)
                reply = json_reply(200, self._operation(self._must(name), call.now))
            case _:
                raise Refusal(404, "notFound", f"{call.method} {call.path} is not simulated.")
        return reply

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON."""
        return json_error(refusal)

    async def _insert(self, asked: dict[str, Any], now: float) -> Reply:
        self._tokens.allow("compute.images.create", "the project")
        name = str(asked.get("name", ""))
        if asked.get("labels"):
            self._tokens.allow("compute.images.setLabels", name)
        _check(asked, name)
        if name in self._shelf.state.images:
            message = f"The resource 'projects/x/global/images/{name}' already exists"
            raise Refusal(409, "alreadyExists", message)
        source = str(asked.get("rawDisk", {}).get("source", ""))
        matched = _SOURCE.fullmatch(source)
        if matched is None:
            message = f"Invalid value for field 'resource.rawDisk.source': '{source}'."
            raise Refusal(400, "invalid", message)
        if not matched[2].endswith(".tar.gz"):
            raise Refusal(400, "invalid", "The source must be a .tar.gz object.")
        try:
            found = self._shelf.find(matched[1], matched[2])
        except Refusal as err:
            message = f"The resource '{source}' was not found"
            raise Refusal(404, "notFound", message) from err
        number = self._shelf.number()
        image = Image(
            name=name, id=10**18 + number, created=now, folder=f"{number:06d}.image", disk_gib=0,
            archive_bytes=found.size, source=source, asked=asked, ready_at=now + self._seconds,
            labels=asked.get("labels", {}),
        )  # fmt: skip
        operation = Operation(f"operation-{number}", "insert", name, now + self._seconds)
        self._shelf.state.operations[operation.name] = operation
        self._shelf.state.images[name] = image
        try:
            pieces = self._shelf.read(found, 0, found.size)
            size = await unpack(pieces, self._shelf.directory / image.folder)
            image.disk_gib = size >> 30
        except BadArchive as err:
            operation.error_code, operation.error = (
                "INVALID_USAGE",
                f"The tar archive is not valid: {err}",
            )
            self._drop(image)
        self._shelf.save()
        return json_reply(200, self._operation(operation, now))

    def _delete(self, name: str, now: float) -> Reply:
        image = self._image(name)
        self._tokens.allow("compute.images.delete", name)
        self._drop(image)
        operation = Operation(f"operation-{self._shelf.number()}", "delete", name, now)
        self._shelf.state.operations[operation.name] = operation
        self._shelf.save()
        return json_reply(200, self._operation(operation, now))

    def _set_labels(self, name: str, asked: dict[str, Any], now: float) -> Reply:
        image = self._image(name)
        self._tokens.allow("compute.images.setLabels", name)
        if asked.get("labelFingerprint") != str(image.generation):
            message = "Labels fingerprint either invalid or resource labels have changed"
            raise Refusal(412, "conditionNotMet", message)
        _check_labels(asked.get("labels", {}))
        image.labels = asked.get("labels", {})
        image.generation += 1
        operation = Operation(f"operation-{self._shelf.number()}", "setLabels", name, now)
        self._shelf.state.operations[operation.name] = operation
        self._shelf.save()
        return json_reply(200, self._operation(operation, now))

    def _drop(self, image: Image) -> None:
        del self._shelf.state.images[image.name]
        shutil.rmtree(self._shelf.directory / image.folder, ignore_errors=True)

    def _image(self, name: str) -> Image:
        found = self._shelf.state.images.get(name)
        if found is None:
            message = f"The resource 'projects/x/global/images/{name}' was not found"
            raise Refusal(404, "notFound", message)
        return found

    def _must(self, name: str) -> Operation:
        found = self._shelf.state.operations.get(name)
        if found is None:
            raise Refusal(404, "notFound", f"The operation {name} was not found")
        return found

    def _operation(self, operation: Operation, now: float) -> dict[str, Any]:
        done = now >= operation.due
        shown: dict[str, Any] = {
            "kind": "compute#operation",
            "id": operation.name.rpartition("-")[2],
            "name": operation.name,
            "operationType": operation.kind,
            "status": "DONE" if done else "RUNNING",
            "progress": 100 if done else 0,
            "targetLink": f"{self._project()}/global/images/{operation.target}",
            "selfLink": f"{self._project()}/global/operations/{operation.name}",
        }
        if done and operation.error:
            shown["error"] = {
                "errors": [{"code": operation.error_code, "message": operation.error}]
            }
            shown["httpErrorStatusCode"] = 400
        return shown

    def _resource(self, image: Image, now: float) -> dict[str, Any]:
        asked = {key: value for key, value in image.asked.items() if key != "rawDisk"}
        return {
            **asked,
            "kind": "compute#image",
            "id": str(image.id),
            "creationTimestamp": datetime.fromtimestamp(image.created, UTC).isoformat(),
            "labels": image.labels,
            "labelFingerprint": str(image.generation),
            "status": "READY" if now >= image.ready_at else "PENDING",
            "sourceType": "RAW",
            "diskSizeGb": str(image.disk_gib),
            "archiveSizeBytes": str(image.archive_bytes),
            "selfLink": f"{self._project()}/global/images/{image.name}",
        }

    def _project(self) -> str:
        return f"{self.url}/compute/v1/projects/{self._shelf.state.identity.project}"


def _check(asked: dict[str, Any], name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refusal(400, "invalid", f"Invalid value for field 'resource.name': '{name}'.")
    for key in asked:
        if key not in _KNOWN:
            raise Refusal(400, "invalid", f"The field {key} is unknown or not simulated.")
    for feature in asked.get("guestOsFeatures", []):
        if feature.get("type") not in _FEATURES:
            message = f"Invalid value for field 'guestOsFeatures[].type': {feature}."
            raise Refusal(400, "invalid", message)
    family = asked.get("family")
    if family is not None and not _NAME.fullmatch(str(family)):
        raise Refusal(400, "invalid", f"Invalid value for field 'resource.family': '{family}'.")
    _check_labels(asked.get("labels", {}))


def _check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(value):
            raise Refusal(400, "invalid", f"Invalid label {key!r}: {value!r}.")
    if len(labels) > 64:
        raise Refusal(400, "invalid", f"{len(labels)} labels; at most 64.")


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise Refusal(400, "parseError", str(err)) from err
