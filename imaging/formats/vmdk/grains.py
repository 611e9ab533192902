"""GrainClaims: refuses grains that share bytes of the file; for blocks so small that they come in runs.

`SpanMap` does the same for blocks of a megabyte, one by one; at 64 KiB that would be a second for each 64 GiB.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterable

from imaging.errors import BlockOverlap, Truncated, UnsupportedImage
from imaging.formats.spans import FileRange, require_apart
from imaging.units import SECTOR_SIZE

_NO_RESERVE = 0x4000
"""mmap(2) MAP_NORESERVE, which Python 3.11 does not name: most of the map is never touched."""


class GrainClaims:
    """Collects the places of all grains of an extent and refuses the first that is not its own.

    In each slot of one grain's length at most one grain begins; the slot keeps at which sector, so a
    run of neighbours is one comparison and one write. Memory: 2 bytes for each grain in the file.
    """

    def __init__(self, file_size: int, *, grain_size: int, reserved: Iterable[FileRange]) -> None:
        """Prepare an empty map; no grain may touch what is `reserved`.

        Raises:
            Truncated, BlockOverlap: The reserved ranges themselves leave the file, or overlap.
        """
        self._file_size = file_size
        self._grain_size = grain_size
        self._grain = grain_size // SECTOR_SIZE
        self._reserved = require_apart(reserved, file_size)
        self._ends = [item.end for item in self._reserved]
        self._width = 2 if self._grain < 1 << 16 else 4
        length = (file_size // grain_size + 3) * self._width
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        try:
            self._slots = mmap.mmap(-1, length, flags=flags)
        except (OSError, OverflowError) as err:
            raise UnsupportedImage(
                f"a file of {file_size} bytes in grains of {grain_size}: too many to check",
                file_size=file_size,
            ) from err

    def claim(self, block: int, sector: int, count: int, length: int) -> None:
        """Give `count` neighbouring grains, together `length` bytes, to the blocks from `block` on.

        Args:
            block: Number of the first, for messages.
            sector: Where it begins in the file.
            count: Grains, at least one.
            length: Bytes that the disk has of them: the last grain may be cut.

        Raises:
            Truncated: They are not inside the file.
            BlockOverlap: They are not free.
        """
        offset = sector * SECTOR_SIZE
        if offset + length > self._file_size:
            last = block + count - 1
            raise Truncated(
                f"grain {last} ends at file offset {offset + length}, but the file has"
                f" {self._file_size} bytes",
                block=last,
                offset=offset,
                file_size=self._file_size,
            )
        index = bisect_right(self._ends, offset)
        if index < len(self._reserved) and self._reserved[index].offset < offset + length:
            item = self._reserved[index]
            raise self._error(block, offset, f"{item.name} ({item.offset} to {item.end})")
        slot, phase = divmod(sector, self._grain)
        slot += 1  # so that the first has a left neighbour
        before, after = self._phase(slot - 1), self._phase(slot + count)
        width = self._width
        begin, end = slot * width, (slot + count) * width
        free = self._slots[begin:end].count(0) == end - begin
        if not free or before > phase or -1 < after < phase:
            raise self._error(block, offset, "another grain")
        self._slots[begin:end] = (phase + 1).to_bytes(width, "little") * count

    def _phase(self, slot: int) -> int:
        """Return the sector of the slot at which a grain begins, -1 if none does."""
        width = self._width
        return int.from_bytes(self._slots[slot * width : (slot + 1) * width], "little") - 1

    def _error(self, block: int, offset: int, what: str) -> BlockOverlap:
        return BlockOverlap(
            f"grain {block}, or one of the run behind it, at file offset {offset} overlaps {what}",
            block=block,
            offset=offset,
        )
