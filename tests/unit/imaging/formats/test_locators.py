"""Parent locators of VHD and VHDX: order, bounds, encodings; every lie in them is refused by offset."""

import struct
import uuid

import pytest

from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.reference import Reference
from imaging.formats.vhd.locator import Locator, parse_locators, parse_name, parse_path
from imaging.formats.vhdx.locator import parse_parent_locator
from tests.support.chains import linkage, parent_locator

GUID = bytes(range(16))
LINKAGE = ("parent_linkage", linkage(GUID))


def entry(code: bytes, length: int = 8, offset: int = 2048) -> bytes:
    return struct.pack(">4sIIIQ", code, 65536, length, 0, offset)


def test_vhd_relative_locators_come_first_and_foreign_ones_are_passed_over() -> None:
    entries = entry(b"MacX", 3) + entry(b"W2ku", 8, 4096) + entry(b"W2ru", 6, 512) + bytes(24)
    assert parse_locators(entries.ljust(192, b"\0"), 0) == [
        Locator(b"W2ru", 6, 512),
        Locator(b"W2ku", 8, 4096),
    ]


@pytest.mark.parametrize("length", [0, 7, 4098, 1 << 31], ids=["empty", "odd", "long", "huge"])
def test_a_vhd_locator_of_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidImage) as caught:
        parse_locators(bytes(24) + entry(b"W2ru", length), 1000)
    assert caught.value.fields["offset"] == 1024


def test_vhd_texts_are_utf_16_of_either_end() -> None:
    assert parse_path("Bäse.vhd\0\0".encode("utf-16-le"), 0) == "Bäse.vhd"
    assert parse_name("Bäse.vhd".encode("utf-16-be").ljust(512, b"\0"), 0) == "Bäse.vhd"
    assert parse_name("ab".encode("utf-16-be") + b"\0\0\xd8\0", 0) == "ab"
    assert parse_name(bytes(512), 0) == ""
    assert parse_name(b"\0a" * 256, 0) == "a" * 256
    for parse in (parse_path, parse_name):
        with pytest.raises(InvalidImage, match="no UTF-16"):
            parse(b"\xd8\xd8\xd8\xd8", 7)


def test_vhdx_paths_come_in_the_order_of_the_specification() -> None:
    pairs = [
        ("absolute_win32_path", "C:\\a"),
        LINKAGE,
        ("relative_path", ".\\b"),
        ("volume_path", "\\\\?\\v\\c"),
        ("parent_linkage2", linkage(GUID[::-1])),
        ("other", "?"),
    ]
    found = parse_parent_locator(parent_locator(pairs), 0)
    assert [each.path for each in found.references] == [".\\b", "\\\\?\\v\\c", "C:\\a"]
    assert [each.relative for each in found.references] == [True, False, False]
    assert found.linkages == (uuid.UUID(bytes_le=GUID), uuid.UUID(bytes_le=GUID[::-1]))


def broken(at: int, data: bytes) -> bytes:
    item = bytearray(parent_locator([LINKAGE, ("relative_path", "b")]))
    item[at : at + len(data)] = data
    return bytes(item)


LIES = {
    "short": (b"\0" * 19, InvalidImage, "19 bytes"),
    "type": (parent_locator([LINKAGE], kind=bytes(16)), UnsupportedImage, "unknown type"),
    "count": (broken(18, b"\x41\0"), InvalidImage, "65 entries"),
    "count-over-end": (parent_locator([LINKAGE])[:30], InvalidImage, "1 entries in 30"),
    "key-outside": (broken(20, b"\xff\xff\xff\xff"), InvalidImage, "28 bytes at 4294967295"),
    "key-odd": (broken(28, b"\x03\0"), InvalidImage, "3 bytes"),
    "value-outside": (broken(30, b"\xf0\xff"), InvalidImage, "65520 bytes"),
    "value-empty": (broken(30, b"\0\0"), InvalidImage, "0 bytes"),
    "no-utf-16": (broken(44, b"\0\xd8\0\xd8"), InvalidImage, "no UTF-16"),
    "twice": (parent_locator([LINKAGE, LINKAGE]), InvalidImage, "twice"),
    "no-linkage": (parent_locator([("relative_path", "b")]), InvalidImage, "no parent_linkage"),
    "no-guid": (parent_locator([("parent_linkage", "{12}")]), InvalidImage, "expected a GUID"),
}


@pytest.mark.parametrize(("item", "error", "cause"), LIES.values(), ids=LIES.keys())
def test_a_lie_in_a_vhdx_locator_is_refused(item: bytes, error: type, cause: str) -> None:
    with pytest.raises(error, match=cause) as caught:
        parse_parent_locator(item, 5000)
    assert caught.value.fields["offset"] >= 5000


@pytest.mark.parametrize(
    ("path", "climbs"),
    [("..\\b", True), (".\\b", False), ("a/../../b", True), ("a..b", False), ("b\\..", True)],
)
def test_a_path_climbs_only_by_whole_parts(path: str, climbs: bool) -> None:
    assert Reference(path, 0).climbs is climbs
