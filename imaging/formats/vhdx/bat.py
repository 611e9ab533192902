"""The BAT of a VHDX ([MS-VHDX] 2.5): read, checked, looked up, built; knows nothing of other metadata."""

import sys
from array import array
from collections.abc import Iterator, Sequence

from imaging.device import BlockDevice
from imaging.errors import InvalidImage
from imaging.extent import Kind
from imaging.formats.layered import LayerRun, Owner
from imaging.formats.mapped import BlockRun
from imaging.formats.spans import FileRange, SpanMap
from imaging.formats.vhdx.layout import DiskParameters
from imaging.units import MiB

ENTRY_SIZE = 8
_STATE_MASK = 0x7
_OFFSET_MASK = ~0xF_FFFF
"""The upper 44 bits count MiB, so in place they are the file offset in bytes."""

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
"""Payload block states (2.5.1.1), the low three bits of an entry; 4 and 5 are reserved."""

_ABSENT = {NOT_PRESENT: Kind.HOLE, UNDEFINED: Kind.HOLE, ZERO: Kind.ZERO, UNMAPPED: Kind.HOLE}
"""States that read as zeros; the offset of an unmapped block may be stale and is never followed."""

BITMAP_SIZE = 1 * MiB
"""A sector bitmap block (2.4): one for the 2^23 sectors of a chunk."""

_PAGE_ENTRIES = 1 << 17
"""Entries read at a time (1 MiB)."""


def entry_count(disk: DiskParameters, blocks: int) -> int:
    """Return the BAT entries of so many blocks, those of sector bitmaps included (2.5)."""
    if disk.has_parent:
        return -(-blocks // disk.chunk_ratio) * (disk.chunk_ratio + 1)
    return blocks + (blocks - 1) // disk.chunk_ratio


def entry_index(block: int, disk: DiskParameters) -> int:
    """Return which entry of the BAT is that of a block: one of a sector bitmap ends each chunk."""
    return block + block // disk.chunk_ratio


def build_entries(disk: DiskParameters, first: int, offsets: Sequence[int]) -> bytes:
    """Build the entries of neighbouring blocks, and those of the sector bitmaps between them.

    Args:
        disk: A disk without a parent.
        first: The first block; its entry lies at `entry_index(first, disk)`.
        offsets: Where each block lies in the file, a multiple of 1 MiB; 0: it is not there.
    """
    start = entry_index(first, disk)
    entries = array("Q", bytes(ENTRY_SIZE)) * (
        entry_index(first + len(offsets) - 1, disk) - start + 1
    )
    for block, offset in enumerate(offsets, first):
        if offset:
            entries[entry_index(block, disk) - start] = offset | FULLY_PRESENT
    if sys.byteorder == "big":
        entries.byteswap()
    return entries.tobytes()


def state_of(entry: int) -> int:
    """Return the state in an entry."""
    return entry & _STATE_MASK


def place_of(entry: int) -> int:
    """Return the file offset in an entry."""
    return entry & _OFFSET_MASK


class BlockAllocationTable:
    """The payload entries, in pages of whole chunks, and those of the sector bitmaps.

    Memory: 8 bytes a block, and one number for each page (1 MiB) whose blocks are all absent alike.
    """

    def __init__(self, file: BlockDevice, offset: int, disk: DiskParameters) -> None:
        """Read the table at file offset `offset`; nothing in it is checked yet."""
        self._file = file
        self._offset = offset
        self._disk = disk
        chunks = max(1, _PAGE_ENTRIES // disk.chunk_ratio)
        self._page_blocks = chunks * disk.chunk_ratio
        self._bitmaps = array("Q")
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

    def layer(self, block: int, limit: int) -> LayerRun:
        """Describe blocks of a differencing disk that are alike, at most to the end of a page."""
        number, index = divmod(block, self._page_blocks)
        end = min(index + limit, self._page_blocks)
        page = self._pages[number]
        entry = page if isinstance(page, int) else page[index]
        state, offset = entry & _STATE_MASK, entry & _OFFSET_MASK
        if state == PARTIALLY_PRESENT:
            chunk, place = divmod(block, self._disk.chunk_ratio)
            bitmap, first_bit = (
                self._bitmaps[chunk] & _OFFSET_MASK,
                place * self._disk.block_sectors,
            )
            return LayerRun(1, Owner.MIXED, Kind.DATA, offset, bitmap, first_bit)
        if state == FULLY_PRESENT:
            assert not isinstance(page, int)
            return LayerRun(self._neighbours(page, index, end), Owner.IMAGE, Kind.DATA, offset)
        count = end - index if isinstance(page, int) else _alike(page, index, end)
        if state == NOT_PRESENT:
            return LayerRun(count, Owner.PARENT)
        return LayerRun(count, Owner.IMAGE, _ABSENT[state])

    def entry(self, block: int) -> int:
        """Return the entry of a block: where it is, and its state in the low three bits."""
        number, index = divmod(block, self._page_blocks)
        page = self._pages[number]
        return page if isinstance(page, int) else page[index]

    def bitmap_entry(self, chunk: int) -> int:
        """Return the entry of a chunk's sector bitmap."""
        return self._bitmaps[chunk]

    def set_entry(self, block: int, entry: int) -> None:
        """Change the entry of a block, in the file too."""
        number, index = divmod(block, self._page_blocks)
        page = self._pages[number]
        if isinstance(page, int):
            blocks = min(self._page_blocks, self._disk.blocks - number * self._page_blocks)
            page = self._pages[number] = array("Q", [page]) * blocks
        page[index] = entry
        self._write(entry_index(block, self._disk), entry)

    def set_bitmap_entry(self, chunk: int, entry: int) -> None:
        """Change the entry of a chunk's sector bitmap, in the file too."""
        self._bitmaps[chunk] = entry
        self._write((chunk + 1) * (self._disk.chunk_ratio + 1) - 1, entry)

    def _write(self, index: int, entry: int) -> None:
        self._file.write(self._offset + index * ENTRY_SIZE, entry.to_bytes(ENTRY_SIZE, "little"))

    def bitmap_ranges(self) -> list[FileRange]:
        """Return where the sector bitmaps of a differencing disk lie (2.5.1.2).

        Raises:
            InvalidImage: A state is reserved.
        """
        found = []
        for chunk, entry in enumerate(self._bitmaps):
            state = entry & _STATE_MASK
            if state == FULLY_PRESENT:
                name = f"the sector bitmap of chunk {chunk}"
                found.append(FileRange(entry & _OFFSET_MASK, BITMAP_SIZE, name))
            elif state != NOT_PRESENT:
                raise InvalidImage(
                    f"BAT entry of the sector bitmap of chunk {chunk} is {entry:#018x}: state"
                    f" {state}, expected {NOT_PRESENT} or {FULLY_PRESENT}",
                    block=chunk * self._disk.chunk_ratio,
                    state=state,
                )
        return found

    def stray_bitmaps(self) -> list[int]:
        """Return the chunks that have a bitmap although the disk has no parent (2.5.1.2)."""
        if self._disk.has_parent:
            return []
        return [chunk for chunk, entry in enumerate(self._bitmaps) if entry & _STATE_MASK]

    def named_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield where each block lies in the file, also of unmapped blocks that kept their place."""
        for page in self._pages:
            for entry in () if isinstance(page, int) else page:
                offset = entry & _OFFSET_MASK
                if entry & _STATE_MASK in (FULLY_PRESENT, PARTIALLY_PRESENT, UNMAPPED) and offset:
                    yield offset, self._disk.block_size

    def mixed_blocks(self) -> Iterator[int]:
        """Yield the blocks of which only some sectors are in this image."""
        for number, page in enumerate(self._pages):
            for block, entry in enumerate(() if isinstance(page, int) else page):
                if entry & _STATE_MASK == PARTIALLY_PRESENT:
                    yield number * self._page_blocks + block

    def claim_all(self, spans: SpanMap) -> None:
        """Check every state, and that every block lies in the file and on nothing else.

        Raises:
            InvalidImage: A state is reserved, or impossible in a disk without a parent or a bitmap.
            Truncated, BlockOverlap: A block is not where it can be.
        """
        for number, page in enumerate(self._pages):
            if not isinstance(page, int):
                self._claim_page(page, number * self._page_blocks, spans)

    def _read_page(self, file: BlockDevice, offset: int, first: int) -> "array[int] | int":
        ratio = self._disk.chunk_ratio
        blocks = min(self._page_blocks, self._disk.blocks - first)
        page = array("Q", bytes(entry_count(self._disk, blocks) * ENTRY_SIZE))
        with memoryview(page) as view, view.cast("B") as raw:
            file.read_into(offset + first // ratio * (ratio + 1) * ENTRY_SIZE, raw)
        if sys.byteorder == "big":
            page.byteswap()
        self._bitmaps.extend(page[ratio :: ratio + 1])
        del page[ratio :: ratio + 1]  # the sector bitmap entry that ends each chunk
        del page[blocks:]
        content = page.tobytes()
        if page[0] & _STATE_MASK in _ABSENT and content == content[:ENTRY_SIZE] * blocks:
            return page[0]
        return page

    def _claim_page(self, page: "array[int]", first: int, spans: SpanMap) -> None:
        block_size, size = self._disk.block_size, self._disk.virtual_size
        for block, entry in enumerate(page, first):
            state = entry & _STATE_MASK
            if state == FULLY_PRESENT or (state == PARTIALLY_PRESENT and self._has_bitmap(block)):
                # The last block may be cut where the disk ends: qemu's fixed disks end there.
                length = min(block_size, size - block * block_size)
                spans.claim(block, entry & _OFFSET_MASK, length)
            elif state not in _ABSENT:
                why = "without a bitmap" if self._disk.has_parent else "in a disk without a parent"
                raise InvalidImage(
                    f"BAT entry of block {block} is {entry:#018x}: state {state} is not allowed"
                    f" {why}",
                    block=block,
                    state=state,
                )

    def _has_bitmap(self, block: int) -> bool:
        chunk = block // self._disk.chunk_ratio
        present = self._disk.has_parent and self._bitmaps[chunk] & _STATE_MASK == FULLY_PRESENT
        return bool(present)

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
