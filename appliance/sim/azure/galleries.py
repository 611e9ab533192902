"""Compute Galleries: galleries, image definitions, image versions (REST reference of Galleries, 2023-07-03).

A version copies its disk's bytes while it is being made; until then its disk cannot be deleted. A definition says for
which kind of disk it is, and that cannot be changed. Only what this product needs is taken, all else refused by name.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from appliance.sim.azure.armrequest import checked_tags
from appliance.sim.azure.disks import Disks, security_of
from appliance.sim.azure.state import DiskRecord, GalleryRecord
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Call, Refusal, Reply

_PATH = re.compile(
    r"/subscriptions/([^/]+)/resourcegroups/([^/]+)/providers/microsoft\.compute/galleries/([^/]+)"
    r"(?:/images/([^/]+)(?:/versions/([^/]+))?)?",
    re.IGNORECASE,
)
_NAMES = {
    "gallery": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._]{0,78}[A-Za-z0-9])?"),
    "image": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?"),
    "version": re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}"),
}
_LEVELS = ("gallery", "image", "version")
_TYPES = {
    "gallery": "galleries",
    "image": "galleries/images",
    "version": "galleries/images/versions",
}
_PART_MOST = 2**31 - 1

Accept = Callable[[Call, Callable[[], Any], str, str], Reply]
"""(call, what is done when it is due, location, kind of operation) -> 202."""


class _Model(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A JSON object of the REST model: what is not declared is not simulated."""


class _Identifier(_Model):
    publisher: str
    offer: str
    sku: str


class _Feature(_Model):
    name: Literal["SecurityType"]
    value: Literal["TrustedLaunch", "TrustedLaunchSupported"]


class _ImageProperties(_Model):
    os_type: Literal["Windows", "Linux"]
    os_state: Literal["Generalized", "Specialized"]
    identifier: _Identifier
    hyper_v_generation: Literal["V1", "V2"] = msgspec.field(default="V1", name="hyperVGeneration")
    architecture: Literal["x64", "Arm64"] = "x64"
    features: list[_Feature] = []


class _Region(_Model):
    name: str


class _Publishing(_Model):
    target_regions: list[_Region]
    replica_count: int = 1
    storage_account_type: Literal["Standard_LRS", "Standard_ZRS", "Premium_LRS"] = "Standard_LRS"


class _Source(_Model):
    id: str


class _OsDisk(_Model):
    source: _Source


class _Storage(_Model):
    os_disk_image: _OsDisk


class _VersionProperties(_Model):
    publishing_profile: _Publishing
    storage_profile: _Storage


class _Gallery(_Model):
    location: str
    tags: dict[str, str] = {}
    properties: dict[str, str] = {}


class _Image(_Model):
    location: str
    properties: _ImageProperties
    tags: dict[str, str] = {}


class _Version(_Model):
    location: str
    properties: _VersionProperties
    tags: dict[str, str] = {}


_MODELS: dict[str, type[_Gallery | _Image | _Version]] = {
    "gallery": _Gallery,
    "image": _Image,
    "version": _Version,
}


def operation(method: str, path: str) -> str:
    """Name the operation: arm.gallery-*, arm.image-*, arm.version-*; "" for what is no gallery's."""
    found = _PATH.fullmatch(path)
    return f"arm.{_level(found)}-{method.lower()}" if found else ""


class Galleries:
    """All galleries of the subscription."""

    def __init__(self, vault: Vault, disks: Disks, require_group: Callable[[str], None]) -> None:
        self._vault = vault
        self._disks = disks
        self._require_group = require_group

    async def answer(self, call: Call, path: str, accept: Accept) -> Reply:
        """Do what is asked of one gallery, definition or version."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise Refusal(404, "InvalidResourceType", f"{path} is not simulated.")
        group = found[2]
        self._require_group(group)
        names = [name for name in found.groups()[2:] if name]
        key = "/".join([group, *names]).lower()
        match call.method:
            case "GET":
                return _json(200, self._shape(self._get(key, path)))
            case "PUT":
                body = b"".join(await call.body.read())
                return self._put(call, group, names, body=body, accept=accept)
            case "DELETE":
                return self._delete(call, key, accept)
        raise Refusal(405, "MethodNotAllowed", f"{call.method} is not simulated here.")

    def add(self, group: str, name: str, location: str) -> None:
        """Make a gallery, as an administrator has it."""
        record = GalleryRecord(name, group, {"location": location, "tags": {}, "properties": {}})
        self._vault.state.galleries[f"{group}/{name}".lower()] = record
        self._vault.save()

    def check_unused(self, disk: DiskRecord) -> None:
        """Raise 409 while a version is being made of a disk."""
        wanted = (
            f"/resourcegroups/{disk.group}/providers/microsoft.compute/disks/{disk.name}".lower()
        )
        for record in self._vault.state.galleries.values():
            source = _source_of(record.body)
            if disk.kind == "disks" and source.lower().endswith(wanted) and record.creating:
                message = f"Disk {disk.name} is the source of image version {record.path}, which is being created."
                raise Refusal(409, "OperationNotAllowed", message)

    # --- making -------------------------------------------------------------------------------------------

    def _put(
        self, call: Call, group: str, names: list[str], *, body: bytes, accept: Accept
    ) -> Reply:
        level = _LEVELS[len(names) - 1]
        if not _NAMES[level].fullmatch(names[-1]):
            raise Refusal(400, "InvalidParameter", f"The {level} name {names[-1]!r} is not valid.")
        if level == "version" and any(int(part) > _PART_MOST for part in names[-1].split(".")):
            raise Refusal(400, "InvalidParameter", f"The version {names[-1]!r} is out of range.")
        try:
            wanted = msgspec.json.decode(body, type=_MODELS[level])
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            message = f"The request content was invalid or is not simulated: {err}."
            raise Refusal(400, "InvalidRequestContent", message) from err
        checked_tags(wanted.tags)
        parent = self._parent(group, names)
        key = "/".join([group, *names]).lower()
        old = self._vault.state.galleries.get(key)
        new = msgspec.to_builtins(wanted)
        if old is not None:
            _check_fixed(level, old.body, new)
        record = old or GalleryRecord("/".join(names), group, new)
        if isinstance(wanted, _Version) and old is None:
            self._take_disk(record, wanted, parent, call.now)
        record.body = new
        record.creating = record.creating or old is None
        self._vault.state.galleries[key] = record
        self._vault.save()

        def work() -> dict[str, Any]:
            record.creating = False
            self._vault.save()
            return self._shape(record)

        reply = accept(call, work, new["location"], "capsOperations")
        reply.status = 201 if old is None else 200
        reply.headers["Content-Type"] = "application/json; charset=utf-8"
        reply.body = msgspec.json.encode(self._shape(record))
        return reply

    def _parent(self, group: str, names: list[str]) -> GalleryRecord | None:
        if len(names) == 1:
            return None
        key = "/".join([group, *names[:-1]]).lower()
        found = self._vault.state.galleries.get(key)
        if found is None:
            message = f"Can not perform requested operation on nested resource. Parent resource '{key}' not found."
            raise Refusal(404, "ParentResourceNotFound", message)
        return found

    def _take_disk(
        self, record: GalleryRecord, wanted: _Version, image: GalleryRecord | None, now: float
    ) -> None:
        """Copy the disk's bytes, if its definition is for such a disk."""
        disk = self._disks.by_id(wanted.properties.storage_profile.os_disk_image.source.id)
        regions = [one.name for one in wanted.properties.publishing_profile.target_regions]
        if wanted.location not in regions:
            message = f"The source's region {wanted.location} is not among the target regions."
            raise Refusal(400, "InvalidParameter", message)
        about = (image.body if image else {}).get("properties", {})
        features = {one["name"]: one["value"] for one in about.get("features", [])}
        rules = (
            ("hyperVGeneration", disk.generation, about.get("hyperVGeneration")),
            ("osType", disk.os_type, about.get("osType")),
            ("SecurityType", security_of(disk), features.get("SecurityType", "Standard")),
        )
        for name, found, wanted_there in rules:
            if wanted_there != found:
                message = f"The disk has {name} {found}, the image definition has {wanted_there}."
                raise Refusal(409, "PropertyChangeNotAllowed", message)
        blob = self._disks.copy(disk, now)
        record.blob = blob.record
        self._vault.versions[f"{record.group}/{record.path}".lower()] = blob

    def _delete(self, call: Call, key: str, accept: Accept) -> Reply:
        found = self._vault.state.galleries.get(key)
        if found is None:
            return Reply(204)
        inside = [one for one in self._vault.state.galleries if one.startswith(f"{key}/")]
        if inside:
            message = f"Can not delete resource before nested resources are deleted: {inside[0]}."
            raise Refusal(409, "CannotDeleteResource", message)

        def work() -> None:
            if self._vault.state.galleries.pop(key, None) is not None:
                blob = self._vault.versions.pop(key, None)
                self._vault.save()
                if blob is not None:
                    blob.file.delete()

        return accept(call, work, str(found.body["location"]), "capsOperations")

    def _get(self, key: str, path: str) -> GalleryRecord:
        found = self._vault.state.galleries.get(key)
        if found is None:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
        return found

    def _shape(self, record: GalleryRecord) -> dict[str, Any]:
        names = record.path.split("/")
        level = _LEVELS[len(names) - 1]
        parts = zip(("galleries", "images", "versions"), names, strict=False)
        subscription = self._vault.state.identity.subscription
        path = f"/subscriptions/{subscription}/resourceGroups/{record.group}/providers/Microsoft.Compute"
        state = "Creating" if record.creating else "Succeeded"
        return {
            **record.body,
            "id": path + "".join(f"/{kind}/{name}" for kind, name in parts),
            "name": names[-1],
            "type": f"Microsoft.Compute/{_TYPES[level]}",
            "properties": {**record.body["properties"], "provisioningState": state},
        }


def _check_fixed(level: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    fixed = {"image": ("properties",), "version": ("location",), "gallery": ("location",)}[level]
    for name in fixed:
        if old[name] != new[name]:
            raise Refusal(409, "PropertyChangeNotAllowed", f"Changing '{name}' is not allowed.")
    if level == "version" and _source_of(old).lower() != _source_of(new).lower():
        raise Refusal(409, "PropertyChangeNotAllowed", "Changing the source is not allowed.")


def _source_of(body: dict[str, Any]) -> str:
    storage = body.get("properties", {}).get("storageProfile", {})
    return str(storage.get("osDiskImage", {}).get("source", {}).get("id", ""))


def _level(found: re.Match[str]) -> str:
    return _LEVELS[sum(1 for name in found.groups()[2:] if name) - 1]


def _json(status: int, body: object) -> Reply:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(status, headers, msgspec.json.encode(body))
