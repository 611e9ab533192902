"""Managed disks as a state machine: ReadyToUpload -> ActiveUpload -> Unattached, with access by stored policies.

Knows no HTTP. Seen on the real service by others (AzureStorageExplorer issues 2221, 6654): a bad footer leaves the
disk in ActiveUpload, without access, to be deleted. From memory only: a second grant during an upload gives a new SAS.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.sim.azure.footer import FOOTER_SIZE, footer_problem
from appliance.sim.azure.sas import service_sas
from appliance.sim.azure.state import DiskRecord, Policy
from appliance.sim.azure.vault import PageBlob, Vault, fingerprint
from appliance.sim.call import Refusal

SIZE_MIN = 20_972_032
"""uploadSizeBytes: 20 MiB and a footer."""

SIZE_MAX = 35_183_298_347_520

SKUS = (
    "Standard_LRS",
    "StandardSSD_LRS",
    "StandardSSD_ZRS",
    "Premium_LRS",
    "Premium_ZRS",
    "PremiumV2_LRS",
    "UltraSSD_LRS",
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
_ID_PARTS = 9
"""Of `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/disks/NAME`, split at its slashes."""
_PIECE = 1 << 20
SAS_VERSION = "2018-03-28"
"""`sv` in the URLs of real disk grants."""


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A checked request to create a disk."""

    location: str
    sku: str
    upload_size: int
    os_type: str
    generation: str
    zones: list[str]
    tags: dict[str, str]
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """A checked request to make a snapshot; `source` is a disk's ARM id."""

    location: str
    sku: str
    source: str
    os_type: str
    generation: str
    tags: dict[str, str]
    more: dict[str, Any] = field(default_factory=dict)


class Disks:
    """All disks of the simulated subscription; a key is `group/name` in lower case."""

    def __init__(self, vault: Vault, sas_url: Callable[[DiskRecord], str]) -> None:
        self._vault = vault
        self._sas_url = sas_url

    @staticmethod
    def key(group: str, name: str, kind: str = "disks") -> str:
        """Return the key of a disk or snapshot; names of Azure resources do not differ by case."""
        return f"{group}/{name}".lower() if kind == "disks" else f"{group}/{kind}/{name}".lower()

    def all(self, kind: str = "disks") -> list[DiskRecord]:
        """Return every disk, sorted by key."""
        state = self._vault.state
        return [state.disks[key] for key in sorted(state.disks) if state.disks[key].kind == kind]

    def find(self, group: str, name: str, kind: str = "disks") -> DiskRecord | None:
        """Return a disk or None."""
        return self._vault.state.disks.get(self.key(group, name, kind))

    def get(self, group: str, name: str, kind: str = "disks") -> DiskRecord:
        """Return a disk or raise 404."""
        disk = self.find(group, name, kind)
        if disk is None:
            raise Refusal(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.Compute/{kind}/{name}' under resource group '{group}' was not found.",
            )
        return disk

    def by_id(self, resource_id: str) -> DiskRecord:
        """Return a finished disk by its ARM id, as the source of something; raise 404 or 409."""
        parts = resource_id.split("/")
        if len(parts) != _ID_PARTS or parts[-2].lower() != "disks":
            raise Refusal(400, "InvalidParameter", f"The source {resource_id!r} is no disk's id.")
        disk = self.get(parts[4], parts[8])
        if disk.state not in ("Unattached", "Attached", "ActiveSAS"):
            raise _not_allowed(f"Disk {disk.name} is in state {disk.state}.")
        return disk

    def snapshot(self, group: str, name: str, wanted: NewSnapshot, now: float) -> DiskRecord:
        """Make a snapshot: a copy of a finished disk's bytes."""
        old = self.find(group, name, "snapshots")
        source = self.by_id(wanted.source)
        if old is not None:
            if old.source.lower() != wanted.source.lower():
                message = "Changing property 'creationData.sourceResourceId' is not allowed."
                raise Refusal(409, "PropertyChangeNotAllowed", message)
            old.tags = wanted.tags
            self._vault.save()
            return old
        if not _NAME.fullmatch(name):
            raise Refusal(400, "InvalidParameter", f"The resource name {name!r} is not valid.")
        if (wanted.os_type, wanted.generation) != (source.os_type, source.generation):
            message = f"The snapshot's osType and hyperVGeneration are not those of {source.name}."
            raise Refusal(400, "InvalidParameter", message)
        blob = self.copy(source, now)
        unique = str(uuid.uuid4())
        made = DiskRecord(
            name=name, group=group, location=wanted.location, sku=wanted.sku, created=now,
            unique_id=unique, label=f"md-{fingerprint(unique)}", folder=fingerprint(unique[::-1]),
            blob=blob.record, os_type=source.os_type, generation=source.generation,
            tags=wanted.tags, state="Unattached", more=wanted.more | _inherited(source),
            kind="snapshots", source=wanted.source,
        )  # fmt: skip
        key = self.key(group, name, "snapshots")
        self._vault.disks[key] = blob
        self._vault.state.disks[key] = made
        self._vault.save()
        return made

    def copy(self, disk: DiskRecord, now: float) -> PageBlob:
        """Return a copy of a disk's bytes."""
        source = self._vault.disks[self.key(disk.group, disk.name, disk.kind)].file
        made = self._vault.new_blob(source.size, now)
        for offset, length in source.pages.within(0, source.size):
            for at in range(offset, offset + length, _PIECE):
                piece = source.read(at, min(_PIECE, offset + length - at))
                made.file.write(at, [piece])
        return made

    def create(self, group: str, name: str, wanted: NewDisk, now: float) -> DiskRecord:
        """Make the disk, or take the change of an existing one when it touches tags only."""
        old = self.find(group, name)
        if old is not None:
            return self._update(old, wanted)
        if not _NAME.fullmatch(name):
            raise Refusal(
                400, "InvalidParameter", f"The resource name {name!r} is not a valid disk name."
            )
        unique = str(uuid.uuid4())
        blob = self._vault.new_blob(wanted.upload_size, now)
        disk = DiskRecord(
            name=name,
            group=group,
            location=wanted.location,
            sku=wanted.sku,
            created=now,
            unique_id=unique,
            label=f"md-impexp-{fingerprint(unique)}",
            folder=fingerprint(unique[::-1]),
            blob=blob.record,
            os_type=wanted.os_type,
            generation=wanted.generation,
            zones=wanted.zones,
            tags=wanted.tags,
            more=wanted.more,
        )
        key = self.key(group, name)
        self._vault.disks[key] = blob
        self._vault.state.disks[key] = disk
        self._vault.save()
        return disk

    def _update(self, old: DiskRecord, wanted: NewDisk) -> DiskRecord:
        fixed = {
            "creationData.uploadSizeBytes": (old.blob.size, wanted.upload_size),
            "location": (old.location, wanted.location),
            "osType": (old.os_type, wanted.os_type),
            "hyperVGeneration": (old.generation, wanted.generation),
        }
        for name, (before, after) in fixed.items():
            if before != after:
                raise Refusal(
                    409,
                    "PropertyChangeNotAllowed",
                    f"Changing property 'disk.{name}' is not allowed.",
                )
        old.tags = wanted.tags
        self._vault.save()
        return old

    def provisioned(self, disk: DiskRecord) -> None:
        """Note that the creation ended well."""
        disk.provisioning = "Succeeded"
        self._vault.save()

    def tag(self, disk: DiskRecord, tags: dict[str, str]) -> None:
        """Replace the tags."""
        disk.tags = tags
        self._vault.save()

    def attach(self, disk: DiskRecord, machine: str) -> None:
        """Attach a finished disk to a made-up machine ("" detaches)."""
        if disk.state not in ("Unattached", "Attached"):
            raise _not_allowed(f"Disk {disk.name} cannot be attached in state {disk.state}.")
        disk.managed_by = machine
        disk.state = "Attached" if machine else "Unattached"
        self._vault.save()

    def check_deletable(self, disk: DiskRecord) -> None:
        """Raise 409 when the disk is attached or somebody has access."""
        if disk.managed_by:
            raise _not_allowed(f"Disk {disk.name} is attached to VM {disk.managed_by}.")
        if disk.policies:
            raise _not_allowed(
                f"Disk {disk.name} has active access (state {disk.state}). Revoke access before deleting it."
            )

    def delete(self, disk: DiskRecord) -> None:
        """Remove the disk and its bytes."""
        self._vault.drop_disk(self.key(disk.group, disk.name, disk.kind))

    def grant(self, disk: DiskRecord, access: str, seconds: int, now: float) -> str:
        """Open access and return the URL with its SAS."""
        if disk.provisioning != "Succeeded":
            raise _not_allowed(f"Disk {disk.name} is still being created.")
        states = {"Write": ("ReadyToUpload", "ActiveUpload"), "Read": ("Unattached", "ActiveSAS")}[
            access
        ]
        if disk.state not in states:
            raise _not_allowed(
                f"{access} access is not allowed on disk {disk.name} in state {disk.state}; "
                f"allowed in {' and '.join(states)}."
            )
        if disk.state == "ActiveUpload" and not disk.policies:
            raise _not_allowed(f"The upload to disk {disk.name} failed; delete the disk.")
        name = str(uuid.uuid4())
        disk.policies[name] = Policy(
            permissions="rw" if access == "Write" else "r", expires=now + seconds
        )
        disk.state = "ActiveUpload" if access == "Write" else "ActiveSAS"
        self._vault.save()
        return f"{self._sas_url(disk)}?{self.sign(disk, name)}"

    def sign(self, disk: DiskRecord, policy: str) -> str:
        """Return the query of a SAS that names one of the disk's policies."""
        fields = {"sv": SAS_VERSION, "sr": "b", "si": policy}
        canonical = f"/blob/{disk.label}/{disk.folder}/abcd"
        return service_sas(self._vault.state.identity.key, canonical, fields)

    def revoke(self, disk: DiskRecord) -> None:
        """Close access; for an upload, check the footer and finish the disk.

        Raises:
            Refusal: 400 InvalidVhd; access is closed and the disk stays in ActiveUpload.
        """
        uploading = disk.state == "ActiveUpload"
        disk.policies.clear()
        if disk.state == "ActiveSAS":
            disk.state = "Unattached"
        problem = self._problem(disk) if uploading else ""
        if uploading and not problem:
            disk.state = "Unattached"
        self._vault.save()
        if problem:
            where = f"disk 'abcd' with blob {self._sas_url(disk)} is not a supported VHD"
            raise Refusal(
                400, "InvalidVhd", f"The footer of the VHD indicates that {where}. {problem}"
            )

    def _problem(self, disk: DiskRecord) -> str:
        size = disk.blob.size - FOOTER_SIZE
        blob = self._vault.disks[self.key(disk.group, disk.name)]
        return footer_problem(blob.file.read(size, FOOTER_SIZE), size)


def security_of(disk: DiskRecord) -> str:
    """Return the security type of a disk."""
    profile: dict[str, str] = disk.more.get("securityProfile", {})
    return profile.get("securityType", "Standard")


def _inherited(source: DiskRecord) -> dict[str, Any]:
    """Return what a snapshot has of its disk by itself (azure-powershell 24242)."""
    profile = source.more.get("securityProfile")
    return {"securityProfile": profile} if profile else {}


def _not_allowed(message: str) -> Refusal:
    return Refusal(409, "OperationNotAllowed", message)
