"""VHDX structures as bytes: every field from its place, every damage with its offset."""

import struct
import uuid

import pytest

from imaging.errors import ChecksumMismatch, InvalidImage
from imaging.formats.vhdx import layout
from tests.support.disks import (
    BAT_GUID,
    FILE_PARAMETERS,
    LOGICAL_SECTOR,
    METADATA_GUID,
    VIRTUAL_SIZE,
    MiB,
    metadata_region,
    region_table,
    vhdx_header,
)

LOG_GUID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef").bytes_le


def test_header_fields() -> None:
    header = layout.parse_header(vhdx_header(77, log_guid=LOG_GUID, log=(2 * MiB, 5 * MiB)), 65536)
    assert header == layout.Header(77, bytes(range(16, 32)), LOG_GUID, 0, 2 * MiB, 5 * MiB)


@pytest.mark.parametrize("offset", [4, 8, 16, 48, 64, 72, 100, 4095])
def test_any_flipped_bit_of_a_header_is_seen(offset: int) -> None:
    block = bytearray(vhdx_header())
    block[offset] ^= 0x10
    with pytest.raises(ChecksumMismatch) as caught:
        layout.parse_header(bytes(block), 131072)
    assert caught.value.fields["offset"] == 131076


def test_regions() -> None:
    table = region_table([(BAT_GUID, 3 * MiB, MiB, 1), (METADATA_GUID, 2 * MiB, 2 * MiB, 0)])
    assert layout.parse_region_table(table, 0) == [
        layout.Region(layout.REGION_BAT, 3 * MiB, MiB, True),
        layout.Region(layout.REGION_METADATA, 2 * MiB, 2 * MiB, False),
    ]


def test_metadata_items() -> None:
    region = metadata_region([(VIRTUAL_SIZE, bytes(8), 6), (LOGICAL_SECTOR, bytes(4), 2)])
    assert layout.parse_metadata_table(region[:65536], 0) == [
        layout.Item(layout.ITEM_VIRTUAL_SIZE, 65536, 8, True),
        layout.Item(layout.ITEM_LOGICAL_SECTOR, 65544, 4, False),
    ]


def parameters(block_size: int, flags: int, size: int, sector: int) -> layout.DiskParameters:
    items = {
        FILE_PARAMETERS: struct.pack("<II", block_size, flags),
        VIRTUAL_SIZE: struct.pack("<Q", size),
        LOGICAL_SECTOR: struct.pack("<I", sector),
    }
    return layout.parse_parameters(items, 0)


def test_parameters_and_what_follows_from_them() -> None:
    disk = parameters(32 * MiB, 3, 65 * MiB, 4096)
    assert (disk.is_fixed, disk.has_parent, disk.sector_size) == (True, True, 4096)
    assert (disk.blocks, disk.chunk_ratio) == (3, 1024)
    assert parameters(MiB, 0, MiB, 512).chunk_ratio == 4096


@pytest.mark.parametrize(
    ("block_size", "size", "sector"),
    [
        (0, MiB, 512),
        (MiB // 2, MiB, 512),
        (3 * MiB, MiB, 512),
        (512 * MiB, MiB, 512),
        (MiB, 0, 512),
        (MiB, 513, 512),
        (MiB, 512, 4096),
        (MiB, (64 << 40) + 512, 512),
        (MiB, MiB, 0),
        (MiB, MiB, 1024),
    ],
)
def test_impossible_parameters(block_size: int, size: int, sector: int) -> None:
    with pytest.raises(InvalidImage):
        parameters(block_size, 0, size, sector)


def test_what_is_built_is_what_the_tests_build_by_hand() -> None:
    header = layout.Header(77, bytes(range(16, 32)), LOG_GUID, 0, 2 * MiB, 5 * MiB)
    built = layout.build_header(header, file_write_guid=bytes(range(16)))
    assert built == vhdx_header(77, log_guid=LOG_GUID, log=(2 * MiB, 5 * MiB))
    regions = [(BAT_GUID, 3 * MiB, MiB, 1), (METADATA_GUID, 2 * MiB, MiB, 1)]
    built = layout.build_region_table([layout.Region(*region) for region in regions])
    assert built == region_table(regions)


@pytest.mark.parametrize("is_fixed", [False, True])
def test_metadata_that_are_built_parse(is_fixed: bool) -> None:
    disk = layout.DiskParameters(2 * MiB, is_fixed, False, 5 * MiB, 4096)
    built = layout.build_metadata(disk, disk_id=LOG_GUID)
    items = layout.parse_metadata_table(built[:65536], 0)
    contents = {item.guid: built[item.offset : item.offset + item.length] for item in items}
    assert layout.parse_parameters(contents, 0) == disk
    assert contents[layout.ITEM_DISK_ID] == LOG_GUID
    assert contents[layout.ITEM_PHYSICAL_SECTOR] == struct.pack("<I", 4096)
    assert all(item.required for item in items)


def test_the_identifier_begins_with_the_signature() -> None:
    block = layout.build_identifier("tests")
    assert block[:18] == b"vhdxfile" + "tests".encode("utf-16-le")
    assert not any(block[18:])
