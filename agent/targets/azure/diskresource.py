"""The body of a PUT that makes a managed disk for direct upload (REST reference of Disks, 2023-10-02). Pure."""

from typing import Any

from protocol.ops import AzureDisk


def disk_resource(ref: AzureDisk, upload_size: int, tags: dict[str, str]) -> dict[str, Any]:
    """Return the resource; `upload_size` counts the footer."""
    properties: dict[str, Any] = {
        "osType": ref.os_type,
        "hyperVGeneration": ref.generation,
        "creationData": {"createOption": "Upload", "uploadSizeBytes": upload_size},
    }
    if ref.security_type != "Standard":
        properties["securityProfile"] = {"securityType": ref.security_type}
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
    resource: dict[str, Any] = {
        "location": ref.location,
        "sku": {"name": ref.sku},
        "tags": tags,
        "properties": properties,
    }
    return resource | ({"zones": list(ref.zones)} if ref.zones else {})
