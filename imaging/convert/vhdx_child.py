"""Write a differencing VHDX in the order of its disk ([MS-VHDX] 2.4, 2.5): blocks, bitmaps, BAT. Opens no parent.

Chunk after chunk: the blocks of a chunk, then its sector bitmap if a block is mixed, so a bitmap is in memory only
while its chunk is written. Blocks behind each other in the disk lie behind each other in the file.

| what changed in a block | its state (2.5.1.1) |
|---|---|
| nothing | NOT_PRESENT: the parent's |
| something, and now all of it is zeros | ZERO: takes no space |
| every sector | FULLY_PRESENT |
| some sectors | PARTIALLY_PRESENT, and a bit for each of them |

Memory: 1 MiB for the bitmap, and at most 256 KiB for the BAT entries of a chunk.
"""

import uuid
from array import array

from imaging.convert.vhdx_frame import BAT_OFFSET, write_headers, write_metadata
from imaging.formats.vhdx.entries import (
    BITMAP_SIZE,
    ENTRY_SIZE,
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    ZERO,
    entry_count,
    entry_index,
)
from imaging.formats.vhdx.layout import DiskParameters
from imaging.output import OutputFile
from imaging.units import MiB, round_up
from imaging.words import pack_words

_NOWHERE = -1


class ChildWriter:
    """One differencing VHDX being written, from the beginning of the disk to its end, by one thread."""

    def __init__(self, file: OutputFile, disk: DiskParameters) -> None:
        """Begin in an empty file; a disk to which nothing is done is its parent."""
        self._file = file
        self._disk = disk
        self._bat_length = round_up(entry_count(disk, disk.blocks) * ENTRY_SIZE, MiB)
        self._end = BAT_OFFSET + self._bat_length
        self._bitmap = bytearray(BITMAP_SIZE)
        self._block = self._place = _NOWHERE
        self._first_bit = self._changed = 0
        self._all_zero = True
        self._begin_chunk()

    def add(self, offset: int, mask: int, *, is_zero: bool) -> None:
        """Say which sectors of a range are this image's, behind all ranges before it.

        Args:
            offset: Of the range in the disk, a multiple of 8 sectors; the range lies in one block.
            mask: A bit for each sector from `offset` on, the first one in the lowest bit; 0: all are the parent's.
            is_zero: Whether the whole range reads as zeros. Ranges that nobody speaks of must, or be the parent's.
        """
        block, inside = divmod(offset, self._disk.block_size)
        if block != self._block:
            self._finish_block()
            self._begin_block(block)
        self._all_zero = self._all_zero and is_zero
        self._changed += mask.bit_count()
        bits = mask.to_bytes(-(-mask.bit_length() // 8), "little")
        at = (self._first_bit + inside // self._disk.sector_size) // 8
        self._bitmap[at : at + len(bits)] = bits

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes of the range that was added last, inside its own sectors."""
        if self._place == _NOWHERE:
            self._place = self._allocate(self._disk.block_size)
        self._file.write(self._place + offset % self._disk.block_size, data)

    def finish(self, metadata: bytes, unique_id: uuid.UUID) -> None:
        """Write what makes a VHDX of it, and flush. Committing the file is the caller's."""
        self._finish_block()
        self._finish_chunk()
        self._file.truncate(self._end)
        write_metadata(self._file, metadata, bat_length=self._bat_length)
        self._file.flush()
        write_headers(self._file, unique_id)
        self._file.flush()

    def _begin_block(self, block: int) -> None:
        ratio = self._disk.chunk_ratio
        if self._block != _NOWHERE and block // ratio != self._block // ratio:
            self._finish_chunk()
        self._block = block
        self._first_bit = block % ratio * self._disk.block_sectors
        self._place = _NOWHERE
        self._changed = 0
        self._all_zero = True

    def _finish_block(self) -> None:
        """Find out the state of the block: it is known only when all of it was seen."""
        if self._block == _NOWHERE or not self._changed:
            return
        state = self._state()
        if state != ZERO and self._place == _NOWHERE:
            self._place = self._allocate(self._disk.block_size)
        if state == PARTIALLY_PRESENT:
            self._has_bitmap = True
        else:
            start, length = self._first_bit // 8, self._disk.block_sectors // 8
            self._bitmap[start : start + length] = bytes(length)
        self._entries[self._block % self._disk.chunk_ratio] = max(self._place, 0) | state

    def _state(self) -> int:
        if self._all_zero:
            return ZERO
        start = self._block * self._disk.block_size
        length = min(self._disk.block_size, self._disk.virtual_size - start)
        is_whole = self._changed == length // self._disk.sector_size
        return FULLY_PRESENT if is_whole else PARTIALLY_PRESENT

    def _finish_chunk(self) -> None:
        """Write the bitmap of the chunk, if it has one, and its part of the BAT."""
        ratio = self._disk.chunk_ratio
        if self._has_bitmap:
            place = self._allocate(BITMAP_SIZE)
            self._file.write(place, memoryview(self._bitmap))
            self._entries[ratio] = place | FULLY_PRESENT
            self._bitmap = bytearray(BITMAP_SIZE)
        if any(self._entries):
            at = entry_index(self._block // ratio * ratio, self._disk)
            self._file.write(BAT_OFFSET + at * ENTRY_SIZE, pack_words(self._entries, "little"))
        self._begin_chunk()

    def _begin_chunk(self) -> None:
        self._entries = array("Q", [NOT_PRESENT]) * (self._disk.chunk_ratio + 1)
        self._has_bitmap = False

    def _allocate(self, length: int) -> int:
        place = self._end
        self._end += length
        return place
