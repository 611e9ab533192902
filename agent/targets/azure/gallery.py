"""The result `image-version`: a version of an image definition in a Compute Gallery, made of the proven disk.

The gallery has to be there; a definition that is missing is made, one that is there has to fit (OS, generation, state).
Versions have no rename: `new-version` takes the next free patch number.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from agent.errors import Permanent
from agent.targets.azure.arm import POLL_S, ArmDisks
from agent.targets.azure.diskresource import FINAL, STATE, tags_of
from agent.targets.azure.results import Scope
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog
from agent.targets.errors import DiskLost, NotOurs, TargetExists, TargetNotFound, TargetRefused
from agent.targets.naming import MOST_VERSIONS, Found
from agent.targets.tags import Tagger
from protocol.ops import AzureDisk, AzureGallery

DEFINITION, VERSION = "azure.image-definition", "azure.image-version"
GALLERY_API = "2023-07-03"
_NESTED_TRIES = 12
"""A definition counts a version that was deleted for some 20 s more (azure-rest-api-specs 19686)."""
_FAILED = ("Failed", "Canceled")


class DefinitionDiffers(Permanent):
    """The image definition that is there is for another kind of disk."""

    code = "azure.definition-differs"
    http_status = 409
    fix = "Name another definition in [target.gallery], or set os_type, generation and os_state as it has them."


class VersionOfImage:
    """See the module."""

    def __init__(
        self, ref: AzureDisk, gallery: AzureGallery, arm: Callable[[], ArmDisks], scope: Scope
    ) -> None:
        self._ref = ref
        self._gallery = gallery
        self._arm = arm
        self._scope = scope
        self._version = gallery.version

    async def prepare(self, spec: DiskSpec, intents: IntentLog | None) -> None:
        """Find the gallery, hold the definition to the disk and choose the version.

        Raises:
            TargetNotFound, DefinitionDiffers, TargetExists, NotOurs.
        """
        if await self._fetch("") is None:
            msg = f"gallery {self._ref.resource_group}/{self._gallery.name} does not exist"
            raise TargetNotFound(msg)
        definition = await self._fetch(self._image)
        if definition is not None:
            self._check(definition)
        self._version = await self._free(spec, intents)

    def known(self, name: str, intents: IntentLog) -> bool:  # noqa: ARG002 - its name is the version's
        """See `Result`."""
        return intents.known(self._intent()) is not None

    async def look(self, name: str, tagger: Tagger) -> Found | None:  # noqa: ARG002
        """The disk is temporary: nothing but a disk has its name."""
        return None

    async def is_made(self, name: str, spec: DiskSpec, intents: IntentLog) -> bool:
        """See `Result`."""
        if not self.known(name, intents):
            return False
        found = await self._fetch(self._path)
        return found is not None and self._is_line(found, self._path, spec.tagger)

    async def make(self, name: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """See `Result`."""
        if await self._fetch(self._image) is None:
            definition = Intent(DEFINITION, self._scope, self._image)
            await intents.record(definition)
            await self._put(self._image, self._definition(spec))
            await intents.created(definition, "")
        found = await self._fetch(self._path)
        if found is not None and _state_of(found) in _FAILED:
            if not self._is_line(found, self._path, spec.tagger):
                raise TargetExists(f"image version {self._path} is another job's, and failed")
            await self._arm().remove(self._id(self._path), GALLERY_API, "the failed version")
        if not await self.is_made(name, spec, intents):
            if await self._fetch(self._path) is not None:
                raise TargetExists(
                    f"image version {self._path} was made by somebody else meanwhile"
                )
            await intents.record(self._intent())
            await self._put(self._path, self._resource(self._arm().resource_id(name), spec))
        made = await self._provisioned()
        if not self._is_line(made, self._path, spec.tagger):
            msg = f"image version {self._path} is not the one that this job made"
            raise DiskLost(msg, name=self._path)
        await intents.created(self._intent(), "")
        facts = {"version": self._version, "gallery": self._gallery.name}
        return Artifact(VERSION, self._id(self._path), {**facts, "image": self._gallery.image})

    def objects(self, name: str) -> list[str]:  # noqa: ARG002
        """See `Result`."""
        where = f"{self._ref.resource_group}/{self._gallery.name}"
        return [
            f"image definition {where}/{self._gallery.image}, unless it is there",
            f"image version {where}/{self._gallery.image}/{self._version}",
        ]

    # --- names --------------------------------------------------------------------------------------------

    @property
    def _image(self) -> str:
        return f"{self._gallery.name}/{self._gallery.image}"

    @property
    def _path(self) -> str:
        return f"{self._image}/{self._version}"

    def _intent(self) -> Intent:
        return Intent(VERSION, self._scope, self._path)

    def _id(self, path: str) -> str:
        return resource_id(self._arm(), path)

    async def _free(self, spec: DiskSpec, intents: IntentLog | None) -> str:
        """Return the version to make, by the table of `naming`."""
        major, minor, patch = self._gallery.version.split(".")
        count = MOST_VERSIONS if spec.if_exists == "new-version" else 1
        versions = [f"{major}.{minor}.{int(patch) + step}" for step in range(count)]
        for version in versions if intents is not None else ():
            path = f"{self._image}/{version}"
            if (
                intents is not None
                and intents.known(Intent(VERSION, self._scope, path)) is not None
            ):
                return version
        for version in versions:
            found = await self._fetch(f"{self._image}/{version}")
            if found is None:
                return version
            if count == 1:
                where = f"image version {self._image}/{version}"
                ours = spec.tagger.read(tags_of(found), self._scope, f"{self._image}/{version}")
                if spec.if_exists != "fail" and ours is None:
                    raise NotOurs(f"{where} exists and carries no owner tag of this appliance")
                raise TargetExists(f"{where} exists and is finished", where=where)
        raise TargetExists(f"{self._gallery.version} and {count - 1} versions after it exist")

    # --- resources ----------------------------------------------------------------------------------------

    async def _fetch(self, path: str) -> dict[str, Any] | None:
        path = path or self._gallery.name
        return await self._arm().fetch(self._id(path), GALLERY_API, f"gallery {path}")

    async def _put(self, path: str, resource: dict[str, Any]) -> None:
        await self._arm().put(self._id(path), GALLERY_API, f"gallery image {path}", resource)

    async def _provisioned(self) -> dict[str, Any]:
        """Return the version once it is in every region."""
        while True:
            found = await self._fetch(self._path)
            if found is None:
                msg = f"image version {self._path} is gone"
                raise DiskLost(msg, name=self._path)
            state = _state_of(found)
            if state == "Succeeded":
                return found
            if state in _FAILED:
                msg = (
                    f"image version {self._path} {state}: see its replication status in the portal"
                )
                raise TargetRefused(msg)
            await asyncio.sleep(POLL_S)

    def _is_line(self, resource: dict[str, Any], path: str, tagger: Tagger) -> bool:
        return tagger.is_this_line(tags_of(resource), self._scope, path)

    def _fixed(self) -> dict[str, str]:
        """Return what a definition says of the disk and cannot be changed."""
        ref = self._ref
        state = self._gallery.os_state
        return {"osType": ref.os_type, "hyperVGeneration": ref.generation, "osState": state}

    def _check(self, definition: dict[str, Any]) -> None:
        properties = definition.get("properties", {})
        for name, expected in self._fixed().items():
            found = properties.get(name)
            if found != expected:
                msg = f"image definition {self._image} has {name} {found}, the disk is {expected}"
                raise DefinitionDiffers(msg, found=found, expected=expected)
        features = {f.get("name"): f.get("value") for f in properties.get("features") or []}
        security = features.get("SecurityType", "Standard")
        if (
            security != self._ref.security_type
        ):  # also TrustedLaunchSupported, which takes no disk (packer-azure 304)
            msg = f"image definition {self._image} has SecurityType {security}, the disk is {self._ref.security_type}"
            raise DefinitionDiffers(msg, found=security, expected=self._ref.security_type)

    def _definition(self, spec: DiskSpec) -> dict[str, Any]:
        ref, gallery = self._ref, self._gallery
        properties: dict[str, Any] = dict(self._fixed())
        properties["architecture"] = "x64"
        properties["identifier"] = {
            "publisher": gallery.publisher,
            "offer": gallery.offer,
            "sku": gallery.sku or gallery.image,
        }
        if ref.security_type != "Standard":
            properties["features"] = [{"name": "SecurityType", "value": ref.security_type}]
        return self._tagged(self._image, spec, properties)

    def _resource(self, disk: str, spec: DiskSpec) -> dict[str, Any]:
        regions = dict.fromkeys((self._ref.location, *self._gallery.regions))
        profile = {
            "replicaCount": self._gallery.replicas,
            "storageAccountType": self._gallery.storage,
            "targetRegions": [{"name": region} for region in regions],
        }
        storage = {"osDiskImage": {"source": {"id": disk}}}
        properties = {"publishingProfile": profile, "storageProfile": storage}
        return self._tagged(self._path, spec, properties)

    def _tagged(self, path: str, spec: DiskSpec, properties: dict[str, Any]) -> dict[str, Any]:
        tags = {**self._ref.tags, **spec.tagger.tags(self._scope, path), STATE: FINAL}
        return {"location": self._ref.location, "tags": tags, "properties": properties}


def _state_of(resource: dict[str, Any]) -> str:
    return str(resource.get("properties", {}).get("provisioningState", ""))


def resource_id(arm: ArmDisks, path: str) -> str:
    """Return the ARM id of "gallery", "gallery/image" or "gallery/image/version"."""
    parts = zip(("galleries", "images", "versions"), path.split("/"), strict=False)
    return f"{arm.group}/providers/Microsoft.Compute" + "".join(
        f"/{kind}/{name}" for kind, name in parts
    )


async def discard(arm: ArmDisks, intent: Intent, tagger: Tagger) -> str | None:
    """Delete a version or a definition of this line; None when it is gone, else why it is left."""
    path = resource_id(arm, intent.name)
    where = f"{intent.kind.removeprefix('azure.')} {intent.name}"
    found = await arm.fetch(path, GALLERY_API, where)
    if found is None:
        return None
    if not tagger.is_this_line(tags_of(found), intent.scope, intent.name):
        return f"{where} carries another owner tag"
    refused: TargetRefused | None = None
    for _ in range(_NESTED_TRIES if intent.kind == DEFINITION else 1):
        try:
            await arm.remove(path, GALLERY_API, where)
        except TargetRefused as err:  # it has versions of others, or one that is being deleted
            refused = err
            await asyncio.sleep(POLL_S)
        else:
            return None
    return f"{where} is in use: {refused}"
