"""Grain tables: looked up in windows, however big the disk is; holes of the file are not read."""

import struct
from array import array

import pytest

from imaging.errors import InvalidImage, Truncated
from imaging.extent import Kind
from imaging.formats.mapped import BlockRun
from imaging.formats.vmdk.layout import parse_header
from imaging.formats.vmdk.tables import GrainTables, KeptWindows
from imaging.memory import MemoryDevice
from imaging.overlay import OverlayDevice
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, SparseVmdk

TiB = 1 << 40


class Counting(OverlayDevice):
    """A device that counts its reads."""

    reads = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads += 1
        super().read_into(offset, buffer)


def tables_of(image: SparseVmdk, file: OverlayDevice | None = None) -> GrainTables:
    file = file or OverlayDevice(MemoryDevice(image.build()))
    header = parse_header(image.header(directory=1), 0)
    return GrainTables(file, header, image.places()["directory"] * 512, KeptWindows())


def test_runs_are_cut_where_the_file_jumps() -> None:
    image = SparseVmdk(MiB, flags=7, entries={0: 500, 1: 516, 2: 532, 3: 600, 5: 1, 6: 1, 7: 9000})
    tables = tables_of(image)
    assert tables.lookup(0, 99) == BlockRun(3, Kind.DATA, 500 * 512)
    assert tables.lookup(1, 1) == BlockRun(1, Kind.DATA, 516 * 512)
    assert tables.lookup(3, 99) == BlockRun(1, Kind.DATA, 600 * 512)
    assert tables.lookup(4, 99).kind is Kind.HOLE
    assert tables.lookup(5, 99) == BlockRun(2, Kind.ZERO, 0)
    assert tables.alike(0, 99) == BlockRun(4, Kind.DATA, 500 * 512)
    assert list(tables.entries(0, 4)) == [500, 516, 532, 600]
    assert list(tables.data_runs(0)) == [(0, 3, 500), (3, 1, 600), (7, 1, 9000)]


def test_grains_in_disorder_are_not_looked_at_again_and_again() -> None:
    tables = tables_of(SparseVmdk(64 * MiB, entries={n: 10**6 - 16 * n for n in range(8192)}))
    window = tables.window(0)
    assert window is not None
    looked: list[int] = []

    class Looking(array):  # type: ignore[type-arg]
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            looked.append(index)
            return super().__getitem__(index)

    tables._kept._windows[(0, 0)] = Looking("I", window)
    assert all(tables.lookup(number, 8192 - number).count == 1 for number in range(8192))
    assert len(looked) <= 3 * 8192


def test_an_entry_of_one_is_a_sector_unless_the_flag_says_zeros() -> None:
    tables = tables_of(SparseVmdk(MiB, flags=3, entries={2: 1}))
    assert tables.lookup(2, 1) == BlockRun(1, Kind.DATA, 512)


def test_entries_behind_the_disk_are_not_looked_at() -> None:
    image = SparseVmdk(3 * GRAIN, entries=dict.fromkeys(range(3, 512), 2**32 - 1))
    tables = tables_of(image)
    assert tables.window(0) is None
    assert tables.lookup(0, 9) == BlockRun(3, Kind.HOLE, 0)


def test_an_empty_disk_of_64_tib_is_a_few_questions_and_no_read_of_a_table() -> None:
    image = SparseVmdk(64 * TiB, grain_size=64 * 1024)
    count = image.tables
    file = Counting(MemoryDevice(0), size=1024 + count * 4 + count * 2048 + 512)
    first = (1024 + count * 4) // 512
    file.write(1024, struct.pack(f"<{count}I", *range(first, first + 4 * count, 4)))
    header = parse_header(image.header(directory=2), 0)
    tables = GrainTables(file, header, 1024, KeptWindows())
    assert list(tables.table_ranges()) == [(first * 512, count * 2048)]
    assert all(tables.window(number) is None for number in range(tables.windows))
    assert file.reads == 1


def test_windows_are_read_again_only_when_many_others_came_between() -> None:
    window = 64 * 512
    image = SparseVmdk(20 * window * GRAIN, entries={n * window: 10**6 for n in range(20)})
    file = Counting(MemoryDevice(image.build()))
    tables = tables_of(image, file)
    before = file.reads
    for _ in range(3):
        assert all(tables.lookup(n * window, 1).kind is Kind.DATA for n in range(10))
    assert file.reads == before + 10
    for number in range(20):
        tables.lookup(number * window, 1)
    assert len(tables._kept._windows) == 16


@pytest.mark.parametrize("offset", [0, 511, 10**6, 2**63])
def test_a_directory_outside_of_the_file_is_refused(offset: int) -> None:
    image = SparseVmdk(MiB)
    header = parse_header(image.header(directory=1), 0)
    with pytest.raises(Truncated, match="grain directory"):
        GrainTables(MemoryDevice(image.build()), header, offset, KeptWindows())


def test_a_table_outside_of_the_file_is_refused() -> None:
    image = SparseVmdk(MiB)
    directory = image.places()["directory"] * 512
    size = len(image.build())
    image.parts[directory] = struct.pack("<I", size // 512 - 3)
    with pytest.raises(Truncated, match=f"a grain table at {size - 3 * 512}"):
        tables_of(image)


def test_more_tables_than_the_file_can_hold_are_refused() -> None:
    image = SparseVmdk(64 * 512 * GRAIN)
    file = bytearray(64 * 1024)
    file[512 : 512 + 64 * 4] = struct.pack("<I", 9) * 64
    header = parse_header(image.header(directory=1), 0)
    with pytest.raises(InvalidImage, match="can hold"):
        GrainTables(MemoryDevice(bytes(file)), header, 512, KeptWindows())


def test_tables_of_two_directories_never_share_what_is_kept() -> None:
    image = SparseVmdk(MiB, {0: pattern(GRAIN)}, spare={0: 999})
    header, kept = parse_header(image.header(directory=1), 0), KeptWindows()
    file, at = MemoryDevice(image.build()), image.places()
    for name, sector in (("directory", at["data"]), ("spare", 999)) * 2:
        tables = GrainTables(file, header, at[name] * 512, kept)
        assert tables.lookup(0, 1).file_offset == sector * 512
        del tables
