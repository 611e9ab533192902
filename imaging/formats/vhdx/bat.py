"""The BAT of a VHDX ([MS-VHDX] 2.5) looked up and changed; its pages are read elsewhere, its bytes are `entries`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from imaging.device import BlockDevice
from imaging.extent import Kind
from imaging.formats.claims import UnitClaims
from imaging.formats.layered import LayerRun, Owner
from imaging.formats.mapped import BlockRun
from imaging.formats.vhdx.bat_pages import BatPages
from imaging.formats.vhdx.entries import (
    ABSENT_STATES,
    BITMAP_SIZE,
    ENTRY_SIZE,
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    UNMAPPED,
    entry_index,
    place_of,
    state_of,
)
from imaging.formats.vhdx.layout import DiskParameters

if TYPE_CHECKING:
    from array import array


class BlockAllocationTable:
    """Where the blocks of a disk and its sector bitmaps are. Memory: see `BatPages`."""

    def __init__(self, file: BlockDevice, offset: int, disk: DiskParameters) -> None:
        """Look at the table at file offset `offset`; nothing in it is checked before `guard`."""
        self._file = file
        self._offset = offset
        self._disk = disk
        self._pages = BatPages(file, offset, disk)

    def guard(self, claims: UnitClaims) -> None:
        """Check every state, and that every block lies in the file and on nothing else, when it is first met.

        Raises:
            InvalidImage, Truncated, BlockOverlap: A table of up to 1 MiB is wrong. A longer one is checked page by
                page: every other method may raise them then.
        """
        self._pages.guard(claims)

    def lookup(self, block: int, limit: int) -> BlockRun:
        """Describe blocks that are alike, at most to the end of a page."""
        entries, index, end = self._window(block, limit)
        if isinstance(entries, int):
            return BlockRun(end - index, ABSENT_STATES[state_of(entries)], 0)
        entry = entries[index]
        if state_of(entry) == FULLY_PRESENT:
            return BlockRun(self._neighbours(entries, index, end), Kind.DATA, place_of(entry))
        return BlockRun(_alike(entries, index, end), ABSENT_STATES[state_of(entry)], 0)

    def layer(self, block: int, limit: int) -> LayerRun:
        """Describe blocks of a differencing disk that are alike, at most to the end of a page."""
        entries, index, end = self._window(block, limit)
        entry = entries if isinstance(entries, int) else entries[index]
        state, offset = state_of(entry), place_of(entry)
        if state == PARTIALLY_PRESENT:
            chunk, place = divmod(block, self._disk.chunk_ratio)
            bitmap, first_bit = place_of(self.bitmap_entry(chunk)), place * self._disk.block_sectors
            return LayerRun(1, Owner.MIXED, Kind.DATA, offset, bitmap, first_bit)
        if state == FULLY_PRESENT:
            assert not isinstance(entries, int)
            return LayerRun(self._neighbours(entries, index, end), Owner.IMAGE, Kind.DATA, offset)
        count = end - index if isinstance(entries, int) else _alike(entries, index, end)
        if state == NOT_PRESENT:
            return LayerRun(count, Owner.PARENT)
        return LayerRun(count, Owner.IMAGE, ABSENT_STATES[state])

    def entry(self, block: int) -> int:
        """Return the entry of a block: where it is, and its state in the low three bits."""
        entries, index, _ = self._window(block, 1)
        return entries if isinstance(entries, int) else entries[index]

    def bitmap_entry(self, chunk: int) -> int:
        """Return the entry of a chunk's sector bitmap."""
        number, index = divmod(chunk, self._pages.page_chunks)
        return self._pages.page(number).bitmaps[index]

    def set_entry(self, block: int, entry: int) -> None:
        """Change the entry of a block, in the file too."""
        number, index = divmod(block, self._pages.page_blocks)
        entries = self._pages.own(number).entries
        assert not isinstance(entries, int)
        entries[index] = entry
        self._write(entry_index(block, self._disk), entry)

    def set_bitmap_entry(self, chunk: int, entry: int) -> None:
        """Change the entry of a chunk's sector bitmap, in the file too."""
        number, index = divmod(chunk, self._pages.page_chunks)
        self._pages.page(number).bitmaps[index] = entry
        self._write((chunk + 1) * (self._disk.chunk_ratio + 1) - 1, entry)

    def stray_bitmaps(self) -> Iterator[int]:
        """Yield the chunks that have a bitmap although the disk has no parent (2.5.1.2)."""
        if not self._disk.has_parent:
            yield from (chunk for chunk, entry in self._bitmaps() if state_of(entry))

    def named_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield where each block and bitmap lies in the file, also of unmapped blocks that kept their place."""
        for _, entry in self._mixed_entries():
            if state_of(entry) in (FULLY_PRESENT, PARTIALLY_PRESENT, UNMAPPED) and place_of(entry):
                yield place_of(entry), self._disk.block_size
        if self._disk.has_parent:
            for _, entry in self._bitmaps():
                if state_of(entry) == FULLY_PRESENT:
                    yield place_of(entry), BITMAP_SIZE

    def mixed_blocks(self) -> Iterator[int]:
        """Yield the blocks of which only some sectors are in this image."""
        for block, entry in self._mixed_entries():
            if state_of(entry) == PARTIALLY_PRESENT:
                yield block

    def _window(self, block: int, limit: int) -> "tuple[array[int] | int, int, int]":
        """Return the entries of the page of a block, its place there, and where a run of at most `limit` ends."""
        number, index = divmod(block, self._pages.page_blocks)
        return self._pages.page(number).entries, index, min(index + limit, self._pages.page_blocks)

    def _mixed_entries(self) -> Iterator[tuple[int, int]]:
        """Yield the blocks of pages whose entries are not all absent alike, and their entries."""
        for number in range(self._pages.count):
            entries = self._pages.page(number).entries
            if not isinstance(entries, int):
                yield from enumerate(entries, number * self._pages.page_blocks)

    def _bitmaps(self) -> Iterator[tuple[int, int]]:
        for number in range(self._pages.count):
            yield from enumerate(self._pages.page(number).bitmaps, number * self._pages.page_chunks)

    def _write(self, index: int, entry: int) -> None:
        self._file.write(self._offset + index * ENTRY_SIZE, entry.to_bytes(ENTRY_SIZE, "little"))

    def _neighbours(self, page: "array[int]", index: int, end: int) -> int:
        """Count the blocks from `index` on that follow each other in the file too."""
        step, start = self._disk.block_size, index
        while index + 1 < end and page[index + 1] == page[index] + step:
            index += 1
        return index + 1 - start


def _alike(page: "array[int]", index: int, end: int) -> int:
    """Count the blocks from `index` on that have the same state."""
    state, start = state_of(page[index]), index
    while index < end and state_of(page[index]) == state:
        index += 1
    return index - start
