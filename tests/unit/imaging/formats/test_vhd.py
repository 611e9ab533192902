"""VHD: which size counts, which footer counts, and what is refused at open."""

import struct
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    BlockOverlap,
    ChecksumMismatch,
    ImagingError,
    InvalidImage,
    Truncated,
)
from imaging.extent import Extent, Kind
from imaging.formats.vhd.device import open_vhd
from imaging.memory import MemoryDevice
from tests.support.disks import DynamicVhd, KiB, MiB, fixed_vhd, pattern, vhd_footer, vhd_sum

BLOCK = 512 * KiB


def opened(content: bytes) -> Any:
    return open_vhd(MemoryDevice(content))


def refusal(content: bytes) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        opened(content)
    return caught.value


def dynamic(**fields: Any) -> DynamicVhd:
    return DynamicVhd(4 * BLOCK, {2: pattern(BLOCK, 2), 0: pattern(BLOCK, 0)}, **fields)


# --- fixed ---------------------------------------------------------------------------------------


def test_a_fixed_disk_is_what_lies_before_its_footer() -> None:
    disk = opened(fixed_vhd(pattern(3 * 512)))
    assert read_bytes(disk, 0, disk.size) == pattern(3 * 512)
    assert (disk.info.format, disk.info.subformat, disk.info.block_size) == ("vhd", "fixed", 0)
    assert disk.info.warnings == ()


def test_a_footer_of_511_bytes_is_one() -> None:
    disk = opened(fixed_vhd(pattern(MiB))[:-1])
    assert disk.size == MiB
    assert read_bytes(disk, MiB - 10, 10) == pattern(MiB)[-10:]


def test_a_boot_sector_at_the_start_changes_nothing() -> None:
    content = b"\xeb\x63\x90".ljust(510, b"\0") + b"\x55\xaa" + pattern(MiB)
    assert read_bytes(opened(fixed_vhd(content)), 0, 512 + MiB) == content


def test_holes_of_the_file_are_holes_of_a_fixed_disk() -> None:
    file = MemoryDevice(MiB + 512)
    file.write(64 * KiB, pattern(4 * KiB))
    file.write(MiB, vhd_footer(MiB))
    assert list(open_vhd(file).extents(0, MiB)) == [
        Extent(0, 64 * KiB, Kind.HOLE),
        Extent(64 * KiB, 4 * KiB, Kind.DATA),
        Extent(68 * KiB, MiB - 68 * KiB, Kind.HOLE),
    ]


@pytest.mark.parametrize(
    ("creator", "chs", "warned"),
    [
        (b"vpc ", b"\x00\x1e\x04\x11", True),
        (b"qemu", b"\x00\x1e\x04\x11", True),
        (b"win ", b"\x00\x1e\x04\x11", False),
        (b"qemu", b"\xff\xff\x10\xff", False),
    ],
    ids=["vpc", "qemu", "win", "saturated"],
)
def test_the_size_is_current_size_and_a_doubt_about_it_is_told(
    creator: bytes, chs: bytes, warned: bool
) -> None:
    disk = opened(fixed_vhd(pattern(MiB), creator=creator, chs=chs))
    assert disk.size == MiB
    assert [str(MiB) in text and "1044480" in text for text in disk.info.warnings] == [
        True
    ] * warned


def test_a_saved_machine_is_warned_about() -> None:
    assert "suspended" in opened(fixed_vhd(pattern(512), saved_state=1)).info.warnings[0]


def test_bytes_between_disk_and_footer_are_warned_about() -> None:
    disk = opened(pattern(MiB) + vhd_footer(MiB - 4096))
    assert disk.size == MiB - 4096
    assert "4096 bytes between" in disk.info.warnings[0]


@pytest.mark.parametrize("missing", [1, 511, 512, 4096])
def test_a_fixed_disk_cut_at_its_start_or_in_the_middle_is_refused(missing: int) -> None:
    err = refusal(fixed_vhd(pattern(MiB))[missing:])
    assert isinstance(err, InvalidImage)


@pytest.mark.parametrize("missing", [2, 100, 511, 512, 513, MiB])
def test_a_fixed_disk_cut_at_its_end_is_refused(missing: int) -> None:
    assert isinstance(refusal(fixed_vhd(pattern(MiB))[:-missing]), InvalidImage)


def test_a_footer_with_a_wrong_checksum_is_refused_with_its_offset() -> None:
    content = bytearray(fixed_vhd(pattern(MiB)))
    content[-200] ^= 1
    err = refusal(bytes(content))
    assert isinstance(err, ChecksumMismatch)
    assert err.fields["offset"] == MiB + 64


# --- dynamic -------------------------------------------------------------------------------------


def test_a_dynamic_disk_reads_its_blocks_and_zeros() -> None:
    disk = opened(dynamic().build())
    zeros = bytes(BLOCK)
    assert read_bytes(disk, 0, disk.size) == pattern(BLOCK, 0) + zeros + pattern(BLOCK, 2) + zeros
    assert [extent.kind for extent in disk.extents(0, disk.size)] == [
        Kind.DATA,
        Kind.HOLE,
        Kind.DATA,
        Kind.HOLE,
    ]
    assert (disk.info.subformat, disk.info.block_size) == ("dynamic", BLOCK)


def test_the_sector_bitmap_of_a_dynamic_disk_is_not_looked_at() -> None:
    content = bytearray(dynamic().build())
    content[2048:2560] = bytes(512)
    assert read_bytes(opened(bytes(content)), 2 * BLOCK, BLOCK) == pattern(BLOCK, 2)


@pytest.mark.parametrize("block_size", [512, 4096, 2 * MiB])
def test_block_sizes(block_size: int) -> None:
    blocks = {0: pattern(block_size, 1), 2: pattern(block_size, 2)}
    disk = opened(DynamicVhd(2 * block_size + 512, blocks, block_size=block_size).build())
    assert read_bytes(disk, 2 * block_size, 512) == pattern(block_size, 2)[:512]


def test_a_damaged_trailing_footer_is_replaced_by_its_copy() -> None:
    content = bytearray(dynamic().build())
    content[-400] ^= 1
    disk = opened(bytes(content))
    assert read_bytes(disk, 0, BLOCK) == pattern(BLOCK, 0)
    assert "copy" in disk.info.warnings[0]


def test_a_lost_trailing_footer_is_replaced_by_its_copy() -> None:
    disk = opened(dynamic().build()[:-512])
    assert read_bytes(disk, 0, BLOCK) == pattern(BLOCK, 0)
    assert "copy" in disk.info.warnings[0]


def test_both_footers_damaged_are_refused() -> None:
    content = bytearray(dynamic().build())
    content[-400] ^= 1
    content[100] ^= 1
    assert isinstance(refusal(bytes(content)), ChecksumMismatch)


def test_a_dynamic_disk_that_lost_data_is_refused() -> None:
    content = dynamic().build()
    for missing in (513, 4096, BLOCK, len(content) - 600):
        assert isinstance(refusal(content[:-missing]), InvalidImage)


def test_a_differencing_disk_without_any_name_of_a_parent_is_refused() -> None:
    assert "names no parent" in str(refusal(dynamic(disk_type=4).build()))


def with_header(**changes: int) -> bytes:
    content = dynamic().build()
    head = content[512:1536]
    for offset, value in ((int(key[1:]), value) for key, value in changes.items()):
        head = head[:offset] + struct.pack(">I", value) + head[offset + 4 :]
    return content[:512] + vhd_sum(head, 36) + content[1536:]


def with_data_offset(value: int) -> bytes:
    content = dynamic().build()
    footer = vhd_sum(content[:16] + struct.pack(">Q", value) + content[24:512], 64)
    return footer + content[512:-512] + footer


FIRST_BLOCK = 2048 // 512
END = (2048 + 2 * (BLOCK + 512)) // 512
LIES = {
    "header-behind-end": (with_data_offset(1 << 40), Truncated, "dynamic header"),
    "header-at-end": (with_data_offset(2**64 - 1), Truncated, "dynamic header"),
    "header-elsewhere": (with_data_offset(4096), InvalidImage, "no VHD dynamic header"),
    "table-behind-end": (with_header(o20=0x7FFFFFFF), Truncated, "the BAT"),
    "table-very-far": (with_header(o16=0x7FFFFFFF), Truncated, "the BAT"),
    "table-over-header": (with_header(o20=1024), BlockOverlap, "inside"),
    "table-over-footer": (with_header(o20=0), BlockOverlap, "inside"),
    "table-too-short": (with_header(o28=3), InvalidImage, "3 entries"),
    "table-absurd": (with_header(o28=0xFFFFFFFF), Truncated, "the BAT"),
    "block-size-0": (with_header(o32=0), InvalidImage, "block size 0"),
    "block-size-odd": (with_header(o32=BLOCK + 512), InvalidImage, "block size"),
    "block-behind-end": (dynamic(bat={1: END}).build(), Truncated, "block 1"),
    "block-far-away": (dynamic(bat={1: 0xFFFFFFFE}).build(), Truncated, "block 1"),
    "block-over-copy": (dynamic(bat={1: 0}).build(), BlockOverlap, "the footer's copy"),
    "block-over-header": (dynamic(bat={1: 2}).build(), BlockOverlap, "the dynamic header"),
    "block-over-table": (dynamic(bat={1: 3}).build(), BlockOverlap, "the BAT"),
    "blocks-equal": (dynamic(bat={1: FIRST_BLOCK}).build(), BlockOverlap, "another block"),
    "blocks-overlap": (dynamic(bat={1: FIRST_BLOCK + 1}).build(), BlockOverlap, "another block"),
}


@pytest.mark.parametrize(("content", "error", "cause"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused_at_open(content: bytes, error: type[ImagingError], cause: str) -> None:
    err = refusal(content)
    assert type(err) is error
    assert cause in str(err)
    assert "offset" in err.fields
