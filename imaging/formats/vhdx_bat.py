"""The BAT of a VHDX ([MS-VHDX] 2.5): read, checked, looked up; knows nothing of other metadata."""

import sys
from array import array

from imaging.device import BlockDevice
from imaging.errors import InvalidImage
from imaging.extent import Kind
from imaging.formats.mapped import BlockRun
from imaging.formats.spans import SpanMap
from imaging.formats.vhdx_layout import DiskParameters

ENTRY_SIZE = 8
_STATE_MASK = 0x7
_OFFSET_MASK = ~0xF_FFFF
"""The upper 44 bits count MiB, so in place they are the file offset in bytes."""

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
"""Payload block states (2.5.1.1), the low three bits of an entry; 4 and 5 are reserved."""

_ABSENT = {NOT_PRESENT: Kind.HOLE, UNDEFINED: Kind.HOLE, ZERO: Kind.ZERO, UNMAPPED: Kind.HOLE}
"""States that read as zeros; the offset of an unmapped block may be stale and is never followed."""

_PAGE_ENTRIES = 1 << 17
"""Entries read at a time (1 MiB)."""


def entry_count(disk: DiskParameters) -> int:
    """Return the entries of the BAT, those of sector bitmaps included (2.5, without a parent)."""
    return disk.blocks + (disk.blocks - 1) // disk.chunk_ratio


class BlockAllocationTable:
    """The payload entries, in pages of whole chunks.

    Memory: 8 bytes a block, and one number for each page (1 MiB) whose blocks are all absent alike.
    """

    def __init__(self, file: BlockDevice, offset: int, disk: DiskParameters) -> None:
        """Read the table at file offset `offset`; nothing in it is checked yet."""
        self._disk = disk
        chunks = max(1, _PAGE_ENTRIES // disk.chunk_ratio)
        self._page_blocks = chunks * disk.chunk_ratio
        self._pages: list[array[int] | int] = [
            self._read_page(file, offset, first)
            for first in range(0, disk.blocks, self._page_blocks)
        ]

    def lookup(self, block: int, limit: int) -> BlockRun:
        """Describe blocks that are alike, at most to the end of a page."""
        number, index = divmod(block, self._page_blocks)
        end = min(index + limit, self._page_blocks)
        page = self._pages[number]
        if isinstance(page, int):
            return BlockRun(end - index, _ABSENT[page & _STATE_MASK], 0)
        entry = page[index]
        if entry & _STATE_MASK == FULLY_PRESENT:
            count = self._neighbours(page, index, end)
            return BlockRun(count, Kind.DATA, entry & _OFFSET_MASK)
        return BlockRun(_alike(page, index, end), _ABSENT[entry & _STATE_MASK], 0)

    def claim_all(self, spans: SpanMap) -> None:
        """Check every state, and that every block lies in the file and on nothing else.

        Raises:
            InvalidImage: A state is reserved, or impossible in a disk without a parent.
            Truncated, BlockOverlap: A block is not where it can be.
        """
        for number, page in enumerate(self._pages):
            if not isinstance(page, int):
                self._claim_page(page, number * self._page_blocks, spans)

    def _read_page(self, file: BlockDevice, offset: int, first: int) -> "array[int] | int":
        ratio = self._disk.chunk_ratio
        blocks = min(self._page_blocks, self._disk.blocks - first)
        page = array("Q", bytes((blocks + (blocks - 1) // ratio) * ENTRY_SIZE))
        with memoryview(page) as view, view.cast("B") as raw:
            file.read_into(offset + first // ratio * (ratio + 1) * ENTRY_SIZE, raw)
        if sys.byteorder == "big":
            page.byteswap()
        del page[ratio :: ratio + 1]  # the sector bitmap entry that ends each chunk
        content = page.tobytes()
        if page[0] & _STATE_MASK in _ABSENT and content == content[:ENTRY_SIZE] * blocks:
            return page[0]
        return page

    def _claim_page(self, page: "array[int]", first: int, spans: SpanMap) -> None:
        block_size, size = self._disk.block_size, self._disk.virtual_size
        for block, entry in enumerate(page, first):
            state = entry & _STATE_MASK
            if state == FULLY_PRESENT:
                # The last block may be cut where the disk ends: qemu's fixed disks end there.
                length = min(block_size, size - block * block_size)
                spans.claim(block, entry & _OFFSET_MASK, length)
            elif state not in _ABSENT:
                raise InvalidImage(
                    f"BAT entry of block {block} is {entry:#018x}: state {state} is not allowed in"
                    " a disk without a parent",
                    block=block,
                    state=state,
                )

    def _neighbours(self, page: "array[int]", index: int, end: int) -> int:
        """Count the blocks from `index` on that follow each other in the file too."""
        step, start = self._disk.block_size, index
        while index + 1 < end and page[index + 1] == page[index] + step:
            index += 1
        return index + 1 - start


def _alike(page: "array[int]", index: int, end: int) -> int:
    """Count the blocks from `index` on that have the same state."""
    state, start = page[index] & _STATE_MASK, index
    while index < end and page[index] & _STATE_MASK == state:
        index += 1
    return index - start
