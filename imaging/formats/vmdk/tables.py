"""Grain directory and grain tables of a sparse VMDK extent, read in windows; reads no grain.

"Virtual Disk Format 5.0", "Grain Directory and Grain Table". A table covers 512 grains (32 MiB), a window 64 tables:
a disk of 64 TiB has 4 GiB of tables, of which a few windows are kept and empty ones cost a bit of one byte string.
"""

import threading
from array import array
from collections.abc import Iterator
from itertools import count

from imaging.device import BlockDevice
from imaging.errors import InvalidImage, Truncated
from imaging.extent import Kind
from imaging.formats.mapped import BlockRun
from imaging.formats.vmdk.layout import TABLE_ENTRIES, TABLE_SIZE, SparseHeader
from imaging.units import SECTOR_SIZE
from imaging.words import order_words, read_words

_WINDOW_TABLES = 64
_WINDOW_GRAINS = _WINDOW_TABLES * TABLE_ENTRIES
_KEPT_WINDOWS = 16
"""Of 128 KiB: as many places of a disk can be read in turn without reading their tables again."""
_TABLE_SECTORS = TABLE_SIZE // SECTOR_SIZE
_HOLE, _ZERO = 0, 1
"""Table entries that are no sector: nothing here, and (with the flag) a grain of zeros."""


class KeptWindows:
    """The windows that were used last, of all extents of a disk: 2 MiB, however many there are."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._windows: dict[tuple[int, int], array[int]] = {}
        self._owners = count()

    def new_owner(self) -> int:
        """Return a number that no other tables have; `id` would come back after a directory was given up."""
        return next(self._owners)

    def get(self, key: tuple[int, int]) -> "array[int] | None":
        """Return a window that is still there."""
        return self._windows.get(key)

    def put(self, key: tuple[int, int], window: "array[int]") -> None:
        """Keep a window; the one that came first goes. The caller holds the lock."""
        if len(self._windows) >= _KEPT_WINDOWS:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = window


class GrainTables:
    """Where the grains are. Memory: 4 bytes for 32 MiB of disk, and what `kept` keeps."""

    def __init__(
        self, file: BlockDevice, header: SparseHeader, directory_offset: int, kept: KeptWindows
    ) -> None:
        """Read and check the directory; the tables are read when they are asked for.

        Raises:
            Truncated: The directory, or a table, is not inside the file.
            InvalidImage: There cannot be so many tables in this file.
        """
        self._file = file
        self._grains = header.grains
        self._grain_sectors = header.grain_size // SECTOR_SIZE
        self._last_absent = _ZERO if header.zero_grains else _HOLE
        self._directory = _read_directory(file, header.tables, directory_offset)
        self._empty = bytearray(self.windows)
        self._kept = kept
        self._owner = kept.new_owner()

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return -(-self._grains // _WINDOW_GRAINS)

    def lookup(self, block: int, limit: int) -> BlockRun:
        """Describe grains that are alike and, if they are data, neighbours in the file too."""
        number, index = divmod(block, _WINDOW_GRAINS)
        window = self.window(number)
        first = 0 if window is None else window[index]
        if window is None or first <= self._last_absent:
            return self.alike(block, limit)
        # No further than the run goes: grains in disorder are asked for one by one.
        end, position = min(index + limit, len(window)), index + 1
        expected, step = first + self._grain_sectors, self._grain_sectors
        while position < end and window[position] == expected:
            position += 1
            expected += step
        return BlockRun(position - index, Kind.DATA, first * SECTOR_SIZE)

    def alike(self, block: int, limit: int) -> BlockRun:
        """Describe grains that are all data (wherever they lie), all holes or all zeros."""
        number, index = divmod(block, _WINDOW_GRAINS)
        end = min(index + limit, _WINDOW_GRAINS, self._grains - number * _WINDOW_GRAINS)
        window = self.window(number)
        if window is None:
            return BlockRun(end - index, Kind.HOLE, 0)
        last_absent, position = self._last_absent, index + 1
        first = window[index]
        if first > last_absent:
            while position < end and window[position] > last_absent:
                position += 1
            return BlockRun(position - index, Kind.DATA, first * SECTOR_SIZE)
        while position < end and window[position] == first:
            position += 1
        return BlockRun(position - index, Kind.ZERO if first else Kind.HOLE, 0)

    def entries(self, block: int, count: int) -> "array[int]":
        """Return the entries of grains that `alike` called data, all in one window."""
        number, index = divmod(block, _WINDOW_GRAINS)
        window = self.window(number)
        return window[index : index + count] if window is not None else array("I")

    def data_runs(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first grain, count, sector) of every run of data that is one in the file too."""
        window = self.window(number)
        if window is None:
            return
        step, last_absent = self._grain_sectors, self._last_absent
        length, expected = 0, -1
        block = number * _WINDOW_GRAINS
        for entry in window:
            if entry == expected:
                length += 1
                expected += step
            else:
                if length:
                    yield block - length, length, expected - length * step
                length, expected = (1, entry + step) if entry > last_absent else (0, -1)
            block += 1
        if length:
            yield block - length, length, expected - length * step

    def table_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (file offset, length) of the tables, joined where they follow each other."""
        start = expected = -1
        for entry in self._directory:
            if entry == expected:
                expected += _TABLE_SECTORS
            elif entry:
                if start >= 0:
                    yield start * SECTOR_SIZE, (expected - start) * SECTOR_SIZE
                start, expected = entry, entry + _TABLE_SECTORS
        if start >= 0:
            yield start * SECTOR_SIZE, (expected - start) * SECTOR_SIZE

    def window(self, number: int) -> "array[int] | None":
        """Return the entries of a window, None if all are holes. May be called from any thread."""
        if self._empty[number]:
            return None
        key = (self._owner, number)
        window = self._kept.get(key)
        if window is not None:
            return window
        with self._kept.lock:
            window = self._kept.get(key)
            if window is None and (window := self._load(number)) is not None:
                self._kept.put(key, window)
            self._empty[number] = window is None
            return window

    def _load(self, number: int) -> "array[int] | None":
        tables = self._directory[number * _WINDOW_TABLES : (number + 1) * _WINDOW_TABLES]
        if not any(tables):  # most windows of a big disk: nothing to allocate, nothing to ask for
            return None
        grains = min(_WINDOW_GRAINS, self._grains - number * _WINDOW_GRAINS)
        window = array("I", bytes(len(tables) * TABLE_SIZE))
        if not self._fill(window, tables):
            return None
        del window[grains:]  # the last table may go on behind the disk's end
        order_words(window, "little")
        return window if any(window) else None

    def _fill(self, window: "array[int]", tables: "array[int]") -> bool:
        """Read tables into their places in the window; return whether there was anything to read."""
        found = False
        with memoryview(window) as view, view.cast("B") as raw:
            for first, there in _neighbours(tables):
                offset, length = tables[first] * SECTOR_SIZE, there * TABLE_SIZE
                # Tables that a writer only reserved are holes: nothing to read, however many.
                if any(extent.is_data for extent in self._file.extents(offset, length)):
                    with raw[first * TABLE_SIZE : first * TABLE_SIZE + length] as part:
                        self._file.read_into(offset, part)
                    found = True
        return found


def _read_directory(file: BlockDevice, tables: int, offset: int) -> "array[int]":
    length = tables * 4
    if not SECTOR_SIZE <= offset <= file.size - length:
        raise Truncated(
            f"the grain directory has {length} bytes at file offset {offset}, but the file has"
            f" {file.size} bytes",
            offset=offset,
            file_size=file.size,
        )
    directory = read_words(file, offset, tables, "I", "little")
    last = max(directory) * SECTOR_SIZE
    if last and last + TABLE_SIZE > file.size:
        raise Truncated(
            f"the grain directory at file offset {offset} puts a grain table at {last}, but the"
            f" file has {file.size} bytes",
            offset=offset,
            file_size=file.size,
        )
    if (tables - directory.count(0)) * TABLE_SIZE > file.size:
        raise InvalidImage(
            f"the grain directory at file offset {offset} names more grain tables than the file"
            f" of {file.size} bytes can hold",
            offset=offset,
            file_size=file.size,
        )
    return directory


def _neighbours(tables: "array[int]") -> Iterator[tuple[int, int]]:
    """Yield (index, count) of the tables that are there, joined where they follow each other."""
    first, length = 0, 0
    for index, entry in enumerate(tables):
        if length and entry == tables[first] + length * _TABLE_SECTORS:
            length += 1
            continue
        if length:
            yield first, length
        first, length = index, 1 if entry else 0
    if length:
        yield first, length
