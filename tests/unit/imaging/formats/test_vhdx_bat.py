"""The BAT of a VHDX: pages, runs, and what a huge table costs."""

import struct

import pytest

from imaging.errors import InvalidImage
from imaging.extent import Kind
from imaging.formats.mapped import BlockRun
from imaging.formats.spans import SpanMap
from imaging.formats.vhdx_bat import BlockAllocationTable, entry_count
from imaging.formats.vhdx_layout import DiskParameters
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
    assert entry_count(disk(blocks, block_size=block_size, sector=sector)) == count


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
    assert file.read == (entry_count(parameters) - 511) * 8
    assert bat._pages == [0] * 512
    assert bat.lookup(0, parameters.blocks).count == bat._page_blocks
