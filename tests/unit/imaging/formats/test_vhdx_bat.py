"""The BAT of a VHDX: pages, runs, and what a huge table costs."""

import struct
from dataclasses import replace

import pytest

from imaging.errors import InvalidImage
from imaging.extent import Kind
from imaging.formats.layered import LayerRun, Owner
from imaging.formats.mapped import BlockRun
from imaging.formats.spans import SpanMap
from imaging.formats.vhdx.bat import BlockAllocationTable, build_entries, entry_count, entry_index
from imaging.formats.vhdx.layout import DiskParameters
from imaging.memory import MemoryDevice

MiB, TiB = 1 << 20, 1 << 40


def disk(blocks: int, *, block_size: int = MiB, sector: int = 512) -> DiskParameters:
    return DiskParameters(block_size, False, False, blocks * block_size, sector)


@pytest.mark.parametrize(
    ("blocks", "block_size", "sector", "count"),
    [
        (1, MiB, 512, 1),
        (4096, MiB, 512, 4096),
        (4097, MiB, 512, 4098),
        (16, 256 * MiB, 512, 16),
        (33, 256 * MiB, 512, 35),
        (129, 256 * MiB, 4096, 130),
    ],
)
def test_entry_count_follows_the_specification(
    blocks: int, block_size: int, sector: int, count: int
) -> None:
    parameters = disk(blocks, block_size=block_size, sector=sector)
    assert entry_count(parameters, blocks) == count


def table(entries: list[int], *, block_size: int = MiB) -> BlockAllocationTable:
    raw = struct.pack(f"<{len(entries)}Q", *entries)
    return BlockAllocationTable(MemoryDevice(raw), 0, disk(len(entries), block_size=block_size))


def test_runs_join_what_is_alike() -> None:
    full = [(offset << 20) | 6 for offset in (9, 10, 11, 20)]
    bat = table([*full, 0, 0, (7 << 20) | 3, 2])
    assert bat.lookup(0, 8) == BlockRun(3, Kind.DATA, 9 * MiB)
    assert bat.lookup(1, 1) == BlockRun(1, Kind.DATA, 10 * MiB)
    assert bat.lookup(3, 5) == BlockRun(1, Kind.DATA, 20 * MiB)
    assert bat.lookup(4, 4) == BlockRun(2, Kind.HOLE, 0)
    assert bat.lookup(6, 2) == BlockRun(1, Kind.HOLE, 0)
    assert bat.lookup(7, 1) == BlockRun(1, Kind.ZERO, 0)


def test_a_table_of_one_kind_is_one_run() -> None:
    bat = table([2] * 10)
    assert bat.lookup(3, 7) == BlockRun(7, Kind.ZERO, 0)


def test_a_uniform_table_of_reserved_states_is_refused() -> None:
    bat = table([5] * 10)
    spans = SpanMap(100 * MiB, span=MiB, unit=MiB, reserved=[])
    with pytest.raises(InvalidImage, match="state 5"):
        bat.claim_all(spans)


class Endless(MemoryDevice):
    """512 MiB that read as zeros and cost nothing."""

    def __init__(self) -> None:
        super().__init__(0)
        self.read = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read += len(buffer)


def test_the_table_of_64_tib_of_nothing_is_a_list_of_numbers() -> None:
    file, parameters = Endless(), disk(64 * TiB // MiB)
    bat = BlockAllocationTable(file, 0, parameters)
    # each but the last of 512 pages leaves out the sector bitmap entry that ends it
    assert file.read == (entry_count(parameters, parameters.blocks) - 511) * 8
    assert bat._pages == [0] * 512
    assert bat.lookup(0, parameters.blocks).count == bat._page_blocks


@pytest.mark.parametrize(
    ("blocks", "block_size", "count"),
    [(1, MiB, 4097), (4096, MiB, 4097), (4097, MiB, 8194), (17, 256 * MiB, 34)],
)
def test_a_differencing_disk_has_whole_chunks_of_entries(
    blocks: int, block_size: int, count: int
) -> None:
    parameters = replace(disk(blocks, block_size=block_size), has_parent=True)
    assert entry_count(parameters, blocks) == count


def test_layers_join_what_is_alike_and_mixed_blocks_know_their_bits() -> None:
    entries = [0, 0, (9 << 20) | 6, (265 << 20) | 6, 2, (7 << 30) | 3, *[0] * 9, (1 << 30) | 7]
    raw = struct.pack("<17Q", *entries, (3 << 20) | 6)
    parameters = replace(disk(16, block_size=256 * MiB), has_parent=True)
    bat = BlockAllocationTable(MemoryDevice(raw), 0, parameters)
    assert bat.layer(0, 16) == LayerRun(2, Owner.PARENT)
    assert bat.layer(2, 14) == LayerRun(2, Owner.IMAGE, Kind.DATA, 9 * MiB)
    assert bat.layer(4, 12) == LayerRun(1, Owner.IMAGE, Kind.ZERO)
    assert bat.layer(5, 11) == LayerRun(1, Owner.IMAGE, Kind.HOLE)
    assert bat.layer(6, 5) == LayerRun(5, Owner.PARENT)
    mixed = LayerRun(1, Owner.MIXED, Kind.DATA, 1 << 30, 3 * MiB, 15 * 256 * 2048)
    assert bat.layer(15, 1) == mixed
    assert [each.offset for each in bat.bitmap_ranges()] == [3 * MiB]


def test_the_table_of_64_tib_of_a_parent_is_a_list_of_numbers() -> None:
    parameters = replace(disk(64 * TiB // MiB), has_parent=True)
    bat = BlockAllocationTable(Endless(), 0, parameters)
    assert bat._pages == [0] * 512
    assert len(bat._bitmaps) == 16384
    assert bat.layer(0, parameters.blocks) == LayerRun(bat._page_blocks, Owner.PARENT)


def test_entries_that_are_built_are_found_again() -> None:
    small = disk(300, block_size=32 * MiB)  # 128 blocks before each sector bitmap
    offsets = [(5 + block) * MiB if block % 3 else 0 for block in range(300)]
    raw = build_entries(small, 0, offsets)
    assert len(raw) == entry_count(small, 300) * 8
    assert raw[128 * 8 : 129 * 8] == bytes(8)
    built = BlockAllocationTable(MemoryDevice(raw), 0, small)
    for block, offset in enumerate(offsets):
        run = built.lookup(block, 1)
        assert (run.kind is Kind.DATA, run.file_offset) == (offset > 0, offset)
    at = entry_index(100, small)
    assert build_entries(small, 100, offsets[100:200]) == raw[at * 8 : (at + 101) * 8]
