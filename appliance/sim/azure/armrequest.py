"""Bodies of the ARM requests that the simulator takes: read, checked, everything unknown refused by name."""

from typing import Any

import msgspec

from appliance.sim.azure.disks import SIZE_MAX, SIZE_MIN, SKUS, NewDisk
from appliance.sim.azure.footer import FOOTER_SIZE
from appliance.sim.call import Refusal

_TAGS_MOST = 50
_TAG_NAME_MOST, _TAG_VALUE_MOST = 512, 256
_TAG_NAME_FORBIDDEN = set("<>%&\\?/")
_DISK_KEYS = {"location", "sku", "tags", "zones", "properties", "id", "name", "type"}
_PROPERTY_KEYS = {
    "creationData",
    "osType",
    "hyperVGeneration",
    "networkAccessPolicy",
    "publicNetworkAccess",
    "supportedCapabilities",
    "dataAccessAuthMode",
}
_PAGE = 512


def _invalid(name: str, value: object, why: str) -> Refusal:
    return Refusal(
        400, "InvalidParameter", f"The value {value!r} of parameter {name} is invalid: {why}."
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as err:
        raise Refusal(
            400, "InvalidRequestContent", f"The request content was invalid: {err}"
        ) from err
    if not isinstance(found, dict):
        raise Refusal(400, "InvalidRequestContent", "The request content is no JSON object.")
    return found


def read_disk(body: bytes) -> NewDisk:
    """Return a checked PUT of a disk.

    Raises:
        Refusal: 400, naming the parameter.
    """
    wanted = _object(body)
    properties = wanted.get("properties") or {}
    _refuse_unknown(set(wanted) - _DISK_KEYS, set(properties) - _PROPERTY_KEYS)
    if not wanted.get("location"):
        raise Refusal(
            400, "LocationRequired", "The location property is required for this definition."
        )
    sku = (wanted.get("sku") or {}).get("name", "Premium_LRS")
    _one_of("sku.name", sku, SKUS)
    os_type, generation = properties.get("osType", ""), properties.get("hyperVGeneration", "")
    _one_of("osType", os_type, ("", "Windows", "Linux"))
    _one_of("hyperVGeneration", generation, ("", "V1", "V2"))
    return NewDisk(
        location=str(wanted["location"]).lower().replace(" ", ""),
        sku=sku,
        upload_size=_upload_size(properties.get("creationData") or {}),
        os_type=os_type,
        generation=generation,
        zones=list(wanted.get("zones") or []),
        tags=_tags(wanted.get("tags") or {}),
    )


def _refuse_unknown(outer: set[str], inner: set[str]) -> None:
    if outer or inner:
        raise Refusal(
            400, "FeatureNotSupported", f"Not simulated on a disk: {sorted(outer | inner)}."
        )


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _invalid(name, value, f"one of {', '.join(word for word in allowed if word)}")


def _upload_size(creation: dict[str, Any]) -> int:
    option = creation.get("createOption")
    if option != "Upload":
        raise Refusal(
            400, "FeatureNotSupported", f"createOption {option!r} is not simulated, only 'Upload'."
        )
    size = creation.get("uploadSizeBytes")
    if not isinstance(size, int):
        raise _invalid("creationData.uploadSizeBytes", size, "required for createOption Upload")
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise _invalid("creationData.uploadSizeBytes", size, f"{SIZE_MIN} to {SIZE_MAX}")
    if (size - FOOTER_SIZE) % _PAGE:
        raise _invalid("creationData.uploadSizeBytes", size, "a whole number of 512-byte pages")
    return size


def _tags(tags: dict[str, Any]) -> dict[str, str]:
    if len(tags) > _TAGS_MOST:
        raise Refusal(
            400, "TooManyTags", f"A resource has at most {_TAGS_MOST} tags, not {len(tags)}."
        )
    for name, value in tags.items():
        if len(name) > _TAG_NAME_MOST or set(name) & _TAG_NAME_FORBIDDEN:
            raise Refusal(
                400,
                "InvalidTagNameCharacters",
                f"The tag name {name!r} is too long or has <>%&\\?/.",
            )
        if not isinstance(value, str) or len(value) > _TAG_VALUE_MOST:
            raise Refusal(
                400, "InvalidTagValueLength", f"The value of tag {name!r} is no string of 256."
            )
    return dict(tags)


def read_access(body: bytes) -> tuple[str, int]:
    """Return (access, seconds) of a checked beginGetAccess."""
    wanted = _object(body)
    unknown = set(wanted) - {"access", "durationInSeconds"}
    if unknown - {"getSecureVMGuestStateSAS"} or wanted.get("getSecureVMGuestStateSAS"):
        raise Refusal(
            400, "FeatureNotSupported", f"Not simulated in beginGetAccess: {sorted(unknown)}."
        )
    access, seconds = wanted.get("access"), wanted.get("durationInSeconds")
    if access not in ("Read", "Write"):
        raise _invalid("access", access, "Read or Write")
    if not isinstance(seconds, int) or not 1 <= seconds <= 0xFFFFFFFF:
        raise _invalid("durationInSeconds", seconds, "1 to 4294967295")
    return access, seconds
