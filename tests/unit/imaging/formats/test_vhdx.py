"""VHDX: what is read, and that every lie in the metadata is refused at open, with offset and cause."""

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
    UnsupportedImage,
)
from imaging.extent import Extent, Kind
from imaging.formats.vhdx.device import open_vhdx
from imaging.memory import MemoryDevice
from tests.support.disks import (
    BAT_GUID,
    BAT_OFFSET,
    DISK_ID,
    FILE_PARAMETERS,
    METADATA_GUID,
    METADATA_OFFSET,
    KiB,
    MiB,
    Vhdx,
    metadata_region,
    pattern,
    signed,
    vhdx_header,
)

TiB = 1 << 40
OTHER = bytes(range(100, 116))
DATA = pattern(MiB)
TOO_MANY_REGIONS = signed(struct.pack("<4sIII", b"regi", 0, 2048, 0), 65536)
BAT = (BAT_GUID, BAT_OFFSET, MiB, 1)
METADATA = (METADATA_GUID, METADATA_OFFSET, MiB, 1)


def small(**fields: Any) -> Vhdx:
    """A sound disk of four blocks, two of them there."""
    return Vhdx(4 * MiB, {0: DATA, 2: pattern(MiB, 2)}, **fields)


def opened(image: Vhdx) -> Any:
    return open_vhdx(MemoryDevice(image.build()))


def refusal(image: Vhdx) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        opened(image)
    return caught.value


def test_reads_blocks_wherever_they_lie() -> None:
    disk = opened(Vhdx(4 * MiB, {3: pattern(MiB, 3), 0: pattern(MiB, 0), 1: pattern(MiB, 1)}))
    expected = pattern(MiB, 0) + pattern(MiB, 1) + bytes(MiB) + pattern(MiB, 3)
    assert read_bytes(disk, 0, 4 * MiB) == expected


def test_describes_itself() -> None:
    info = opened(small(flags=1)).info
    assert (info.format, info.subformat, info.virtual_size) == ("vhdx", "fixed", 4 * MiB)
    assert (info.block_size, info.file_size, info.dirty) == (MiB, 6 * MiB, False)
    assert (info.parent, info.warnings) == (None, ())
    assert opened(small()).info.subformat == "dynamic"


def test_extents_tell_data_zeros_and_holes_apart() -> None:
    states = {1: 2, 3: 3, 4: 1, 5: 0}
    disk = opened(Vhdx(7 * MiB + 512, {0: DATA, 2: DATA}, states=states))
    assert list(disk.extents(512 * KiB, 6 * MiB)) == [
        Extent(512 * KiB, 512 * KiB, Kind.DATA),
        Extent(MiB, MiB, Kind.ZERO),
        Extent(2 * MiB, MiB, Kind.DATA),
        Extent(3 * MiB, 3 * MiB + 512 * KiB, Kind.HOLE),
    ]
    assert sum(extent.length for extent in disk.extents(0, disk.size)) == 7 * MiB + 512


def test_a_hole_of_the_file_inside_a_block_reads_as_zeros_for_certain() -> None:
    size, parts = small().layout()
    file = MemoryDevice(size)
    for offset, data in parts.items():
        file.write(offset, data[: 64 * KiB] if offset == small().data_offset else data)
    disk = open_vhdx(file)
    assert list(disk.extents(0, MiB)) == [
        Extent(0, 64 * KiB, Kind.DATA),
        Extent(64 * KiB, MiB - 64 * KiB, Kind.ZERO),
    ]


@pytest.mark.parametrize("state", [1, 2, 3], ids=["undefined", "zero", "unmapped"])
def test_the_offset_of_a_block_that_is_not_there_is_never_followed(state: int) -> None:
    disk = opened(small(states={1: (1 << 62) | state}))
    assert not any(read_bytes(disk, MiB, MiB))


def test_neighbours_in_the_file_are_one_read() -> None:
    class Counting(MemoryDevice):
        reads = 0

        def read_into(self, offset: int, buffer: memoryview) -> None:
            self.reads += 1
            super().read_into(offset, buffer)

    file = Counting(Vhdx(4 * MiB, {block: pattern(MiB, block) for block in range(4)}).build())
    disk = open_vhdx(file)
    file.reads = 0
    assert len(read_bytes(disk, 100, 4 * MiB - 200)) == 4 * MiB - 200
    assert file.reads == 1


@pytest.mark.parametrize("sector", [512, 4096])
def test_bitmap_entries_between_the_chunks_are_skipped(sector: int) -> None:
    image = Vhdx(0, block_size=256 * MiB, sector=sector)
    image.size = image.ratio * image.block_size + 4096
    image.blocks = {image.ratio: pattern(4096)}  # the only block of the second chunk
    image.parts = {BAT_OFFSET + image.ratio * 8: struct.pack("<Q", (9 << 40) | 6)}
    image.file_size = image.data_offset + 4096
    assert read_bytes(opened(image), image.size - 4096, 4096) == pattern(4096)


def test_a_last_block_may_end_where_the_disk_ends() -> None:
    image = Vhdx(MiB + 512 * KiB, {0: DATA, 1: pattern(512 * KiB, 2)})
    image.file_size = image.data_offset + MiB + 512 * KiB
    assert read_bytes(opened(image), MiB, 512 * KiB) == pattern(512 * KiB, 2)
    image.file_size -= 512
    assert isinstance(refusal(image), Truncated)


def test_4096_byte_sectors_are_read_with_a_warning() -> None:
    disk = opened(small(sector=4096))
    assert read_bytes(disk, 0, MiB) == DATA
    assert disk.info.sector_size == 4096
    assert "4096-byte sectors" in disk.info.warnings[0]


# --- two copies of everything --------------------------------------------------------------------


@pytest.mark.parametrize("headers", [(3, 9), (9, 3)], ids=["second", "first"])
def test_the_header_with_the_higher_number_counts(headers: tuple[int, int]) -> None:
    old = vhdx_header(3, log_guid=OTHER)  # would ask for a replay of an empty log
    new = vhdx_header(9)
    assert opened(small(headers=tuple(old if n == 3 else new for n in headers))).size == 4 * MiB


@pytest.mark.parametrize("offset", [64, 128, 192, 256], ids=lambda kib: f"at-{kib}-KiB")
def test_one_damaged_copy_is_survived_with_a_warning(offset: int) -> None:
    disk = opened(small(parts={offset * KiB + 20: b"\xff"}))
    assert read_bytes(disk, 0, MiB) == DATA
    assert str(offset * KiB) in disk.info.warnings[0]


def test_equal_headers_are_read_and_unequal_ones_of_one_number_refused() -> None:
    assert opened(small(headers=(vhdx_header(1), vhdx_header(1)))).size == 4 * MiB
    other = vhdx_header(1, log=(MiB, 7 * MiB))
    assert "sequence number" in str(refusal(small(headers=(vhdx_header(1), other))))


@pytest.mark.parametrize(("kib", "offset"), [((64, 128), 64 * KiB), ((192, 256), 192 * KiB)])
def test_two_damaged_copies_are_refused(kib: tuple[int, int], offset: int) -> None:
    err = refusal(small(parts={kib[0] * KiB + 20: b"\xff", kib[1] * KiB + 20: b"\xff"}))
    assert isinstance(err, ChecksumMismatch)
    assert err.fields["offset"] == offset + 4


# --- lies ----------------------------------------------------------------------------------------


def regions(*entries: tuple[bytes, int, int, int]) -> Vhdx:
    return small(regions=list(entries))


def parameters(**changed: Any) -> Vhdx:
    """A disk whose metadata say something impossible; its BAT and blocks are those of `small`."""
    lie = Vhdx(4 * MiB, **changed)
    return small(parts={METADATA_OFFSET: lie.layout()[1][METADATA_OFFSET]})


def both_headers(**fields: Any) -> Vhdx:
    return small(headers=(vhdx_header(1, **fields), vhdx_header(2, **fields)))


LIES = {
    "signature": (small(parts={0: b"vhdxfilf"}), InvalidImage, "no VHDX"),
    "header-version": (both_headers(version=2), InvalidImage, "version 2"),
    "log-short": (both_headers(log=(0, MiB)), InvalidImage, "log has 0 bytes"),
    "log-unaligned": (both_headers(log=(MiB, MiB + 512)), InvalidImage, "log has"),
    "log-in-headers": (both_headers(log=(MiB, 0)), InvalidImage, "log has"),
    "log-behind-end": (both_headers(log=(MiB, 1 << 40)), Truncated, "the log ends"),
    "log-over-bat": (both_headers(log=(MiB, BAT_OFFSET)), BlockOverlap, "inside"),
    "dirty-log-behind-end": (
        both_headers(log=(MiB, 1 << 40), log_guid=OTHER),
        Truncated,
        "the log ends",
    ),
    "empty-dirty-log": (both_headers(log_guid=OTHER), InvalidImage, "no complete sequence"),
    "no-bat": (regions(METADATA), InvalidImage, "no BAT"),
    "no-metadata": (regions(BAT), InvalidImage, "no metadata"),
    "region-twice": (regions(METADATA, BAT, BAT), InvalidImage, "twice"),
    "region-unknown": (
        regions(METADATA, BAT, (OTHER, 8 * MiB, MiB, 1)),
        UnsupportedImage,
        "requires the unknown region",
    ),
    "region-unaligned": (
        regions(METADATA, (BAT_GUID, 3 * MiB + 1, MiB, 1)),
        InvalidImage,
        "3145729",
    ),
    "region-empty": (regions(METADATA, (BAT_GUID, 3 * MiB, 0, 1)), InvalidImage, "has 0 bytes"),
    "region-in-headers": (regions(METADATA, (BAT_GUID, 0, MiB, 1)), InvalidImage, "offset 0"),
    "region-behind-end": (
        regions(METADATA, (BAT_GUID, 99 * MiB, MiB, 1)),
        Truncated,
        "the BAT ends",
    ),
    "regions-overlap": (
        regions(METADATA, (BAT_GUID, METADATA_OFFSET, MiB, 1)),
        BlockOverlap,
        "inside",
    ),
    "optional-region-over-a-block": (
        regions(METADATA, BAT, (OTHER, 4 * MiB, MiB, 0)),
        BlockOverlap,
        "block 0",
    ),
    "too-many-regions": (
        small(parts=dict.fromkeys((192 * KiB, 256 * KiB), TOO_MANY_REGIONS)),
        InvalidImage,
        "2048 entries",
    ),
    "metadata-signature": (
        small(parts={METADATA_OFFSET: b"metadatA"}),
        InvalidImage,
        "metadata table",
    ),
    "metadata-count": (
        small(parts={METADATA_OFFSET + 10: b"\xff\xff"}),
        InvalidImage,
        "65535 entries",
    ),
    "item-unknown": (small(extra_items=[(OTHER, b"?", 4)]), UnsupportedImage, "unknown item"),
    "item-twice": (small(extra_items=[(FILE_PARAMETERS, bytes(8), 4)]), InvalidImage, "twice"),
    "item-outside": (
        small(parts={METADATA_OFFSET + 32 + 16: struct.pack("<I", MiB - 4)}),
        InvalidImage,
        "8 bytes at 1048572",
    ),
    "item-in-table": (
        small(parts={METADATA_OFFSET + 32 + 16: struct.pack("<I", 64)}),
        InvalidImage,
        "8 bytes at 64",
    ),
    "item-short": (
        small(parts={METADATA_OFFSET + 32 + 20: struct.pack("<I", 7)}),
        InvalidImage,
        "has 7 bytes",
    ),
    "items-missing": (
        small(parts={METADATA_OFFSET: metadata_region([(DISK_ID, bytes(16), 6)])}),
        InvalidImage,
        "lack the item file parameters",
    ),
    "block-size-0": (parameters(block_size=1 << 40 >> 40), InvalidImage, "block size 1,"),
    "block-size-odd": (parameters(block_size=3 * MiB), InvalidImage, "block size"),
    "block-size-huge": (parameters(block_size=512 * MiB), InvalidImage, "block size"),
    "sector-size": (parameters(sector=520), InvalidImage, "sector size 520"),
    "parent": (parameters(flags=2), InvalidImage, "lack the item parent locator"),
    "bat-too-short": (
        small(parts={METADATA_OFFSET + 65536 + 8: struct.pack("<Q", TiB)}),
        InvalidImage,
        "BAT region",
    ),
    "size-0": (
        small(parts={METADATA_OFFSET + 65536 + 8: bytes(8)}),
        InvalidImage,
        "virtual size 0",
    ),
    "size-odd": (
        small(parts={METADATA_OFFSET + 65536 + 8: struct.pack("<Q", 4 * MiB - 1)}),
        InvalidImage,
        "virtual size",
    ),
    "size-absurd": (
        small(parts={METADATA_OFFSET + 65536 + 8: struct.pack("<Q", 65 * TiB)}),
        InvalidImage,
        "virtual size",
    ),
    "state-4": (small(states={1: 4}), InvalidImage, "block 1"),
    "state-5": (small(states={3: 5}), InvalidImage, "block 3"),
    "state-partial": (small(states={1: (5 << 20) | 7}), InvalidImage, "without a parent"),
    "block-behind-end": (small(states={1: (6 << 20) | 6}), Truncated, "block 1 ends"),
    "block-far-away": (small(states={1: (1 << 63) | 6}), Truncated, "block 1 ends"),
    "block-in-headers": (small(states={1: 6}), BlockOverlap, "the headers"),
    "block-in-log": (small(states={1: (1 << 20) | 6}), BlockOverlap, "the log"),
    "block-in-metadata": (small(states={1: (2 << 20) | 6}), BlockOverlap, "the metadata region"),
    "block-in-bat": (small(states={1: (3 << 20) | 6}), BlockOverlap, "the BAT"),
    "blocks-equal": (small(states={1: (4 << 20) | 6}), BlockOverlap, "another block"),
    "all-blocks-equal": (
        small(states=dict.fromkeys(range(4), (4 << 20) | 6)),
        BlockOverlap,
        "another block",
    ),
}


@pytest.mark.parametrize(("image", "error", "cause"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_refused_at_open(image: Vhdx, error: type[ImagingError], cause: str) -> None:
    err = refusal(image)
    assert type(err) is error
    assert cause in str(err)
    assert "offset" in err.fields or "block" in err.fields


def test_half_overlapping_blocks_are_refused() -> None:
    image = Vhdx(8 * MiB, {0: pattern(2 * MiB)}, block_size=2 * MiB, states={2: (5 << 20) | 6})
    image.file_size = 8 * MiB
    assert isinstance(refusal(image), BlockOverlap)


def test_a_truncated_file_is_refused_wherever_it_ends() -> None:
    content = small().build()
    for length in [0, 7, 8, 64 * KiB, MiB - 1, MiB, 3 * MiB, 4 * MiB, 5 * MiB, 6 * MiB - 1]:
        with pytest.raises(InvalidImage):
            open_vhdx(MemoryDevice(content[:length]))
