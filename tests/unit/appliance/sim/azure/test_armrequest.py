"""Bodies of ARM requests: right ones are read, wrong ones name the parameter."""

import json
from typing import Any

import pytest

from appliance.sim.azure.armrequest import read_access, read_disk
from appliance.sim.call import Refusal

SIZE = (32 << 20) + 512


def _disk(**changes: Any) -> bytes:
    creation = {"createOption": "Upload", "uploadSizeBytes": SIZE} | changes.pop("creation", {})
    properties = {"creationData": creation, "osType": "Windows", "hyperVGeneration": "V2"}
    properties |= changes.pop("properties", {})
    whole = {
        "location": "West Europe",
        "sku": {"name": "StandardSSD_LRS"},
        "properties": properties,
    }
    return json.dumps(whole | changes).encode()


def test_disk_is_read() -> None:
    disk = read_disk(_disk(tags={"a": "b"}, zones=["1"]))
    assert (disk.location, disk.sku, disk.upload_size) == ("westeurope", "StandardSSD_LRS", SIZE)
    assert (disk.os_type, disk.generation, disk.tags, disk.zones) == (
        "Windows",
        "V2",
        {"a": "b"},
        ["1"],
    )


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"{", "InvalidRequestContent", "content"),
        (b"[]", "InvalidRequestContent", "object"),
        (_disk(location="a\nb"), "LocationNotAvailableForResourceType", "a\\nb"),
        (_disk(sku={"name": "Fast_LRS"}), "InvalidParameter", "sku.name"),
        (_disk(properties={"osType": "BeOS"}), "InvalidRequestContent", "osType"),
        (_disk(properties={"hyperVGeneration": "V3"}), "InvalidRequestContent", "hyperVGeneration"),
        (_disk(creation={"createOption": "Empty"}), "InvalidParameter", "Empty"),
        (_disk(creation={"uploadSizeBytes": None}), "InvalidParameter", "uploadSizeBytes"),
        (_disk(creation={"uploadSizeBytes": 20_972_031}), "InvalidParameter", "uploadSizeBytes"),
        (
            _disk(creation={"uploadSizeBytes": 35_183_298_347_521}),
            "InvalidParameter",
            "uploadSizeBytes",
        ),
        (_disk(creation={"uploadSizeBytes": SIZE + 1}), "InvalidParameter", "512-byte pages"),
        (_disk(properties={"burstingEnabled": True}), "InvalidRequestContent", "burstingEnabled"),
        (_disk(plan={}), "InvalidRequestContent", "plan"),
        (_disk(tags={"a/b": "c"}), "InvalidTagNameCharacters", "a/b"),
        (_disk(tags={"a": "c" * 257}), "InvalidTagValueLength", "256"),
        (_disk(tags={str(n): "" for n in range(51)}), "TooManyTags", "50"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_disk_is_refused(body: bytes, code: str, named: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_disk(body)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert named in caught.value.message


def test_access_is_read() -> None:
    assert read_access(b'{"access":"Write","durationInSeconds":3600}') == ("Write", 3600)


@pytest.mark.parametrize(
    "body",
    [
        b'{"access":"Write"}',
        b'{"access":"Write","durationInSeconds":0}',
        b'{"access":"None","durationInSeconds":1}',
        b'{"access":"Read","durationInSeconds":1,"getSecureVMGuestStateSAS":true}',
    ],
    ids=["no-duration", "zero", "other-access", "guest-state"],
)
def test_wrong_access_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_access(body)
    assert caught.value.status == 400
