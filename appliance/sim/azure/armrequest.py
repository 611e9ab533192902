"""Bodies of the ARM requests that the simulator takes: read, checked, everything unknown refused by name."""

import re
from typing import Any, Literal, TypeVar

import msgspec

from appliance.sim.azure.disks import SIZE_MAX, SIZE_MIN, SKUS, NewDisk, NewSnapshot
from appliance.sim.azure.footer import FOOTER_SIZE
from appliance.sim.call import Refusal

_TAGS_MOST = 50
_TAG_NAME_MOST, _TAG_VALUE_MOST = 512, 256
_TAG_NAME_FORBIDDEN = set("<>%&\\?/")
_LOCATION = re.compile(r"[a-z0-9]{1,40}")
_SECONDS_MOST = 0xFFFFFFFF
_PAGE = 512


class _Model(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A JSON object of the REST model: what is not declared is not simulated."""


class _Sku(_Model):
    name: str = "Premium_LRS"


class _Creation(_Model):
    create_option: str
    upload_size_bytes: int | None = None


class _Security(_Model):
    security_type: Literal["TrustedLaunch"]


class _Encryption(_Model):
    type: Literal["EncryptionAtRestWithPlatformKey", "EncryptionAtRestWithCustomerKey"]
    disk_encryption_set_id: str = ""


class _Protected(_Model):
    """What disks and snapshots share."""

    os_type: Literal["", "Windows", "Linux"] = ""
    hyper_v_generation: Literal["", "V1", "V2"] = msgspec.field(default="", name="hyperVGeneration")
    network_access_policy: str = "AllowAll"
    public_network_access: str = "Enabled"
    disk_access_id: str = ""
    data_access_auth_mode: Literal["None", "AzureActiveDirectory"] = "None"
    security_profile: _Security | None = None
    encryption: _Encryption | None = None


class _Properties(_Protected, kw_only=True):
    creation_data: _Creation


class _Disk(_Model):
    location: str
    properties: _Properties
    sku: _Sku = msgspec.field(default_factory=_Sku)
    tags: dict[str, str] = {}
    zones: list[str] = []
    id: str = ""
    name: str = ""
    type: str = ""


class _SnapshotCreation(_Model):
    create_option: Literal["Copy"]
    source_resource_id: str


class _SnapshotProperties(_Protected, kw_only=True):
    creation_data: _SnapshotCreation
    incremental: bool = False


class _SnapshotSku(_Model):
    name: Literal["Standard_LRS", "Premium_LRS", "Standard_ZRS"] = "Standard_LRS"


class _Snapshot(_Model):
    location: str
    properties: _SnapshotProperties
    sku: _SnapshotSku = msgspec.field(default_factory=_SnapshotSku)
    tags: dict[str, str] = {}


class _Access(_Model):
    access: Literal["Read", "Write"]
    duration_in_seconds: int


class _Tags(_Model):
    tags: dict[str, str] = {}


class _Group(_Model):
    location: str
    tags: dict[str, str] = {}


_T = TypeVar("_T", bound=_Model)


def _read(body: bytes, model: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=model)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise Refusal(
            400,
            "InvalidRequestContent",
            f"The request content was invalid or is not simulated: {err}.",
        ) from err


def _invalid(name: str, value: object, why: str) -> Refusal:
    return Refusal(
        400, "InvalidParameter", f"The value {value!r} of parameter {name} is invalid: {why}."
    )


def read_disk(body: bytes) -> NewDisk:
    """Return a checked PUT of a disk.

    Raises:
        Refusal: 400, naming the parameter.
    """
    wanted = _read(body, _Disk)
    if wanted.sku.name not in SKUS:
        raise _invalid("sku.name", wanted.sku.name, f"one of {', '.join(SKUS)}")
    return NewDisk(
        location=_location(wanted.location),
        sku=wanted.sku.name,
        upload_size=_upload_size(wanted.properties.creation_data),
        os_type=wanted.properties.os_type,
        generation=wanted.properties.hyper_v_generation,
        zones=_zones(wanted.zones, wanted.sku.name),
        tags=checked_tags(wanted.tags),
        more=_more(wanted.properties),
    )


def read_snapshot(body: bytes) -> NewSnapshot:
    """Return a checked PUT of a snapshot; raises Refusal."""
    wanted = _read(body, _Snapshot)
    properties = wanted.properties
    if properties.security_profile is not None:
        message = "Security Type 'TrustedLaunch' is not supported for CreateOption 'Copy'."
        raise Refusal(400, "BadRequest", message)
    return NewSnapshot(
        location=_location(wanted.location),
        sku=wanted.sku.name,
        source=properties.creation_data.source_resource_id,
        os_type=properties.os_type,
        generation=properties.hyper_v_generation,
        tags=checked_tags(wanted.tags),
        more={"incremental": properties.incremental, **_more(properties)},
    )


def _zones(zones: list[str], sku: str) -> list[str]:
    if any(zone not in ("1", "2", "3") for zone in zones):
        raise _invalid("zones", zones, "1, 2 or 3")
    if zones and sku.endswith("_ZRS"):
        raise _invalid("zones", zones, f"{sku} disks are in all zones")
    return zones


def _more(wanted: _Protected) -> dict[str, Any]:
    """Return the further properties as the answer shows them, checked against each other."""
    more: dict[str, Any] = {"dataAccessAuthMode": wanted.data_access_auth_mode}
    if wanted.security_profile is not None:
        if wanted.hyper_v_generation != "V2":
            raise _invalid("securityProfile", "TrustedLaunch", "only for hyperVGeneration V2")
        more["securityProfile"] = {"securityType": wanted.security_profile.security_type}
    encryption = wanted.encryption
    if encryption is not None:
        customer = encryption.type == "EncryptionAtRestWithCustomerKey"
        if customer != bool(encryption.disk_encryption_set_id):
            raise _invalid(
                "encryption", encryption.type, "it and diskEncryptionSetId belong together"
            )
        more["encryption"] = {
            "type": encryption.type,
            "diskEncryptionSetId": encryption.disk_encryption_set_id,
        }
    if (wanted.network_access_policy == "AllowPrivate") != bool(wanted.disk_access_id):
        raise _invalid(
            "networkAccessPolicy", wanted.network_access_policy, "AllowPrivate needs diskAccessId"
        )
    if wanted.disk_access_id:
        more["networkAccessPolicy"] = "AllowPrivate"
        more["diskAccessId"] = wanted.disk_access_id
        more["publicNetworkAccess"] = wanted.public_network_access
    return more


def _location(text: str) -> str:
    name = text.lower().replace(" ", "")
    if not _LOCATION.fullmatch(name):
        raise Refusal(
            400, "LocationNotAvailableForResourceType", f"The location {text!r} is not available."
        )
    return name


def _upload_size(creation: _Creation) -> int:
    name = "creationData.uploadSizeBytes"
    if creation.create_option != "Upload":
        raise _invalid(
            "creationData.createOption", creation.create_option, "only Upload is simulated"
        )
    size = creation.upload_size_bytes
    if size is None:
        raise _invalid(name, size, "required for createOption Upload")
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise _invalid(name, size, f"{SIZE_MIN} to {SIZE_MAX}")
    if (size - FOOTER_SIZE) % _PAGE:
        raise _invalid(name, size, f"a whole number of {_PAGE}-byte pages")
    return size


def checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags; raises Refusal."""
    if len(tags) > _TAGS_MOST:
        raise Refusal(400, "TooManyTags", f"At most {_TAGS_MOST} tags, not {len(tags)}.")
    for name, value in tags.items():
        if not 0 < len(name) <= _TAG_NAME_MOST or set(name) & _TAG_NAME_FORBIDDEN:
            raise Refusal(
                400,
                "InvalidTagNameCharacters",
                f"The tag name {name!r} is empty, too long or has <>%&\\?/.",
            )
        if len(value) > _TAG_VALUE_MOST:
            raise Refusal(
                400,
                "InvalidTagValueLength",
                f"Tag {name!r}: more than {_TAG_VALUE_MOST} characters.",
            )
    return tags


def read_tags(body: bytes) -> dict[str, str]:
    """Return the tags of a checked PATCH of a disk; nothing else of a disk can be patched here."""
    return checked_tags(_read(body, _Tags).tags)


def read_group(body: bytes) -> str:
    """Return the location of a checked PUT of a resource group."""
    return _location(_read(body, _Group).location)


def read_access(body: bytes) -> tuple[str, int]:
    """Return (access, seconds) of a checked beginGetAccess."""
    wanted = _read(body, _Access)
    if not 1 <= wanted.duration_in_seconds <= _SECONDS_MOST:
        raise _invalid("durationInSeconds", wanted.duration_in_seconds, f"1 to {_SECONDS_MOST}")
    return wanted.access, wanted.duration_in_seconds
