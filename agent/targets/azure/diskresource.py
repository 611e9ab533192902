"""A managed disk as the REST model has it (reference of Disks, 2023-10-02): made for a PUT, and read. Pure."""

from typing import Any

from protocol.ops import AzureDisk

KIND = "azure.disk"
STATE = "imageport-state"
UNVERIFIED, FINAL = "unverified", "final"
"""States of what failed verification, and of what is done."""
WRITABLE = ("ReadyToUpload", "ActiveUpload")


def disk_resource(ref: AzureDisk, upload_size: int, tags: dict[str, str]) -> dict[str, Any]:
    """Return the resource; `upload_size` counts the footer."""
    properties: dict[str, Any] = {
        "osType": ref.os_type,
        "hyperVGeneration": ref.generation,
        "creationData": {"createOption": "Upload", "uploadSizeBytes": upload_size},
    }
    if ref.security_type != "Standard":
        properties["securityProfile"] = {"securityType": ref.security_type}
    properties |= protection(ref)
    resource: dict[str, Any] = {
        "location": ref.location,
        "sku": {"name": ref.sku},
        "tags": tags,
        "properties": properties,
    }
    return resource | ({"zones": list(ref.zones)} if ref.zones else {})


def protection(ref: AzureDisk) -> dict[str, Any]:
    """Return what keeps a disk, and a snapshot of it: encryption and private access."""
    properties: dict[str, Any] = {}
    if ref.disk_encryption_set:
        properties["encryption"] = {
            "type": "EncryptionAtRestWithCustomerKey",
            "diskEncryptionSetId": ref.disk_encryption_set,
        }
    if ref.disk_access:
        properties["networkAccessPolicy"] = "AllowPrivate"
        properties["diskAccessId"] = ref.disk_access
        properties["publicNetworkAccess"] = "Disabled"
    if ref.entra_upload:
        properties["dataAccessAuthMode"] = "AzureActiveDirectory"
    return properties


def tags_of(resource: dict[str, Any]) -> dict[str, str]:
    """Return a resource's tags; names do not differ by case."""
    return {str(name).lower(): str(value) for name, value in (resource.get("tags") or {}).items()}


def state_of(resource: dict[str, Any]) -> str:
    """Return a disk's state."""
    return str(resource.get("properties", {}).get("diskState", ""))


def attached(resource: dict[str, Any]) -> bool:
    """Whether a disk is attached to a machine."""
    return bool(resource.get("managedBy") or resource.get("managedByExtended"))


def unique_id(resource: dict[str, Any]) -> str:
    """Return what tells a resource from a later one of the same name."""
    return str(resource.get("properties", {}).get("uniqueId", ""))
