"""The BAT of a VHDX: pages, runs, and what a huge table costs."""

import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from imaging.errors import BlockOverlap, InvalidImage
from imaging.extent import Extent, Kind
from imaging.formats.claims import UnitClaims
from imaging.formats.layered import LayerRun, Owner
from imaging.formats.mapped import BlockRun
from imaging.formats.vhdx.bat import BlockAllocationTable
from imaging.formats.vhdx.entries import (
    build_entries,
    entry_count,
    entry_index,
)
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


def claims(size: int = 100 * MiB) -> UnitClaims:
    return UnitClaims(size, unit=MiB, reserved=[])


def test_a_uniform_table_of_reserved_states_is_refused() -> None:
    with pytest.raises(InvalidImage, match="state 5"):
        table([5] * 10).guard(claims())


class Huge(MemoryDevice):
    """The BAT of a disk of 64 TiB: 512 MiB that are holes but for a few entries; counts what is read."""

    def __init__(self, entries: dict[int, int]) -> None:
        super().__init__(0)
        self.entries = entries
        self.read = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read += len(buffer)
        for index, entry in self.entries.items():
            at = index * 8 - offset
            if 0 <= at < len(buffer):
                buffer[at : at + 8] = struct.pack("<Q", entry)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        is_data = any(offset <= index * 8 < offset + length for index in self.entries)
        yield Extent(offset, length, Kind.DATA if is_data else Kind.HOLE)


HUGE = disk(64 * TiB // MiB)


def test_opening_a_table_of_64_tib_reads_nothing_of_it() -> None:
    file = Huge({7: 5})
    bat = BlockAllocationTable(file, 0, HUGE)
    bat.guard(claims(65 * TiB))
    assert file.read == 0
    with pytest.raises(InvalidImage, match="state 5"):
        bat.lookup(7, 1)


def test_a_pass_over_64_tib_of_nothing_reads_nothing_and_is_a_few_steps() -> None:
    file = Huge({})
    bat = BlockAllocationTable(file, 0, HUGE)
    bat.guard(claims(65 * TiB))
    block = steps = 0
    while block < HUGE.blocks:
        block += bat.lookup(block, HUGE.blocks - block).count
        steps += 1
    assert (file.read, steps) == (0, 512)


def test_few_pages_of_a_long_table_are_kept_and_none_is_checked_twice() -> None:
    page = 32 * 4097  # entries of a page, bitmaps included
    file = Huge({number * page: ((number + 1) << 20) | 6 for number in range(20)})
    bat = BlockAllocationTable(file, 0, HUGE)
    bat.guard(claims())
    for _ in range(2):
        for number in range(20):
            assert bat.lookup(number * 32 * 4096, 1).file_offset == (number + 1) * MiB
    assert file.read == 40 * (page - 1) * 8  # but for the bitmap entry that ends the page
    bat.lookup(19 * 32 * 4096, 1)
    assert file.read == 40 * (page - 1) * 8  # but for the bitmap entry that ends the page
    assert len(bat._pages._kept) == 8


def test_an_overlap_across_pages_is_found_by_whoever_meets_the_second() -> None:
    page = 32 * 4097
    file = Huge({0: (5 << 20) | 6, 3 * page: (5 << 20) | 6})
    for first, second in ((0, 3), (3, 0)):
        bat = BlockAllocationTable(file, 0, HUGE)
        bat.guard(claims())
        bat.lookup(first * 32 * 4096, 1)
        with pytest.raises(BlockOverlap, match="another block at 5242880"):
            bat.lookup(second * 32 * 4096, 1)
        with pytest.raises(BlockOverlap):
            bat.lookup(second * 32 * 4096, 1)


def test_entries_of_a_long_table_can_be_changed() -> None:
    file = MemoryDevice(2 * 32 * 4097 * 8)
    parameters = disk(2 * 32 * 4096)
    bat = BlockAllocationTable(file, 0, parameters)
    bat.guard(claims())
    bat.set_entry(32 * 4096 + 4096, (9 << 20) | 6)
    assert bat.lookup(32 * 4096 + 4096, 1).file_offset == 9 * MiB
    again = BlockAllocationTable(file, 0, parameters)
    assert again.lookup(32 * 4096 + 4096, 1).file_offset == 9 * MiB
    assert again.lookup(32 * 4096, 9000).count == 4096


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
    assert (3 * MiB, MiB) in bat.named_ranges()


def test_a_bitmap_of_a_long_table_is_checked_with_its_page() -> None:
    parameters = replace(HUGE, has_parent=True)
    file = Huge({0: (5 << 20) | 7, 4096: (6 << 20) | 6, 4097: (6 << 20) | 6})
    bat = BlockAllocationTable(file, 0, parameters)
    bat.guard(claims())
    with pytest.raises(BlockOverlap, match="a sector bitmap at 6291456"):
        bat.layer(0, 1)
    assert bat.layer(32 * 4096, HUGE.blocks) == LayerRun(32 * 4096, Owner.PARENT)


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
