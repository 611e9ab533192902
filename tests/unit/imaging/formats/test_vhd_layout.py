"""VHD footers and dynamic headers: what is built, parsed and refused."""

import struct

import pytest

from imaging.errors import InvalidImage
from imaging.formats.vhd import layout as vhd_layout
from imaging.formats.vhd.layout import DiskType, Geometry, build_fixed_footer
from imaging.units import GiB, MiB, TiB

DISK_ID = bytes(range(16))


def footer(size=16 * MiB):
    return build_fixed_footer(size, unique_id=DISK_ID, timestamp=42)


def damaged(offset, value, *, resum=True):
    block = bytearray(footer())
    block[offset : offset + len(value)] = value
    if resum:
        struct.pack_into(">I", block, 64, vhd_layout.checksum(block, 64))
    return bytes(block)


def test_built_footer_carries_what_azure_and_every_qemu_check():
    block = footer(12345 * 512)
    assert len(block) == 512
    assert block[:8] == b"conectix"
    assert block[8:16] == bytes.fromhex("0000000200010000")
    assert block[16:24] == b"\xff" * 8
    assert block[28:32] == b"win "
    assert block[36:40] == b"Wi2k"
    assert block[40:56] == struct.pack(">QQ", 12345 * 512, 12345 * 512)
    assert block[60:64] == b"\0\0\0\2"
    assert block[68:84] == DISK_ID
    assert not any(block[84:])
    assert struct.unpack(">I", block[64:68])[0] == 0xFFFFFFFF - sum(block[:64] + block[68:])


def test_built_footer_parses_back():
    parsed = vhd_layout.parse_footer(footer(), 0)
    assert parsed.current_size == 16 * MiB
    assert parsed.disk_type is DiskType.FIXED
    assert parsed.unique_id == DISK_ID
    assert parsed.timestamp == 42
    assert not parsed.saved_state


@pytest.mark.parametrize(
    ("size", "chs"),
    [
        (1 * MiB, Geometry(30, 4, 17)),
        (40 * MiB, Geometry(963, 5, 17)),
        (1 * GiB, Geometry(2080, 16, 63)),
        (127 * GiB, Geometry(65278, 16, 255)),
        (4 * TiB, Geometry(65535, 16, 255)),
    ],
    ids=["1MiB", "40MiB", "1GiB", "127GiB", "saturated"],
)
def test_geometry_follows_the_appendix(size, chs):
    assert vhd_layout.geometry_of(size) == chs
    assert chs.sectors * 512 <= size


@pytest.mark.parametrize("size", [0, -512, 513, 65 * TiB])
def test_no_footer_for_an_impossible_size(size):
    with pytest.raises(ValueError, match="cannot have"):
        build_fixed_footer(size, unique_id=DISK_ID, timestamp=0)


@pytest.mark.parametrize("length", [511, 512])
def test_short_footers_are_footers(length):
    assert vhd_layout.is_footer(footer()[:length])
    assert vhd_layout.parse_footer(footer()[:length], 0).current_size == 16 * MiB


@pytest.mark.parametrize(
    ("block", "offset"),
    [
        (damaged(0, b"c0nectix"), 1000),
        (damaged(100, b"\1", resum=False), 1064),
        (damaged(12, b"\0\2"), 1012),
        (damaged(60, struct.pack(">I", 5)), 1060),
        (damaged(48, struct.pack(">Q", 0)), 1048),
        (damaged(48, struct.pack(">Q", 1000)), 1048),
        (damaged(48, struct.pack(">Q", 1 << 60)), 1048),
    ],
    ids=["cookie", "checksum", "version", "type", "zero-size", "odd-size", "huge-size"],
)
def test_broken_footers_are_refused_with_the_offset(block, offset):
    with pytest.raises(InvalidImage) as caught:
        vhd_layout.parse_footer(block, 1000)
    assert caught.value.fields["offset"] == offset


def dynamic_header(*, block_size=2 * MiB, version=0x10000, cookie=b"cxsparse"):
    head = bytearray(1024)
    struct.pack_into(
        ">8sQQIII", head, 0, cookie, vhd_layout.NO_OFFSET, 1536, version, 7, block_size
    )
    struct.pack_into(">I", head, 36, vhd_layout.checksum(head, 36))
    return bytes(head)


def test_dynamic_header_parses():
    head = vhd_layout.parse_dynamic_header(dynamic_header(), 512)
    assert (head.table_offset, head.max_entries, head.block_size) == (1536, 7, 2 * MiB)


@pytest.mark.parametrize(
    ("block", "offset"),
    [
        (dynamic_header(cookie=b"cxspar5e"), 512),
        (dynamic_header(version=0x20000), 536),
        (dynamic_header(block_size=0), 544),
        (dynamic_header(block_size=3 * MiB), 544),
        (dynamic_header()[:-1] + b"\1", 548),
    ],
    ids=["cookie", "version", "no-block-size", "odd-block-size", "checksum"],
)
def test_broken_dynamic_headers_are_refused_with_the_offset(block, offset):
    with pytest.raises(InvalidImage) as caught:
        vhd_layout.parse_dynamic_header(block, 512)
    assert caught.value.fields["offset"] == offset


def test_a_dynamic_disk_that_is_built_parses():
    block = vhd_layout.build_dynamic_footer(16 * MiB, unique_id=DISK_ID, timestamp=7)
    footer = vhd_layout.parse_footer(block, 0)
    assert (footer.disk_type, footer.data_offset) == (vhd_layout.DiskType.DYNAMIC, 512)
    assert (footer.current_size, footer.timestamp, footer.creator) == (16 * MiB, 7, b"win ")
    built = vhd_layout.build_dynamic_header(table_offset=1536, max_entries=7, block_size=2 * MiB)
    assert built == dynamic_header()


@pytest.mark.parametrize("size", [0, 513, (2040 << 30) + 512])
def test_no_dynamic_footer_for_an_impossible_size(size):
    with pytest.raises(ValueError, match="cannot have"):
        vhd_layout.build_dynamic_footer(size, unique_id=DISK_ID, timestamp=0)
