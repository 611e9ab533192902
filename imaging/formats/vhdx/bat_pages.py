"""The BAT of a VHDX in pages ([MS-VHDX] 2.5): read when they are needed, checked when they are first met, a few kept.

A table of up to 1 MiB is one page, and is looked at whole before anything is read; a longer one (a disk of more than
128 thousand blocks) page by page, so that opening costs nothing, however large the disk is.
"""

import threading
from array import array
from typing import NamedTuple

from imaging.device import BlockDevice
from imaging.errors import InvalidImage
from imaging.formats.claims import UnitClaims
from imaging.formats.vhdx.entries import (
    ABSENT_STATES,
    BITMAP_SIZE,
    ENTRY_SIZE,
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    entry_count,
    place_of,
    state_of,
)
from imaging.formats.vhdx.layout import DiskParameters
from imaging.words import read_words

_PAGE_ENTRIES = 1 << 17
"""Entries read at a time (1 MiB)."""
_KEPT = 8
"""Pages of mixed entries that stay in memory; those whose entries are all alike cost nothing and all stay."""


class Page(NamedTuple):
    """The entries of some whole chunks.

    Attributes:
        entries: Of the blocks; one number if all are absent alike.
        bitmaps: Of the sector bitmaps, one a chunk but for an incomplete last one of a disk without a parent.
    """

    entries: "array[int] | int"
    bitmaps: "array[int]"


class BatPages:
    """All pages of one table; any thread may ask. Memory: at most 9 MiB."""

    def __init__(self, file: BlockDevice, offset: int, disk: DiskParameters) -> None:
        """Read nothing yet of the table at file offset `offset`."""
        self._file = file
        self._offset = offset
        self._disk = disk
        self.page_chunks = max(1, _PAGE_ENTRIES // disk.chunk_ratio)
        self.page_blocks = self.page_chunks * disk.chunk_ratio
        self.count = -(-disk.blocks // self.page_blocks)
        self._kept: dict[int, Page] = {}
        self._mixed: list[int] = []
        self._lock = threading.Lock()
        self._claims: UnitClaims | None = None
        self._checked: set[int] = set()

    def guard(self, claims: UnitClaims) -> None:
        """Check every page when it is first met: its states, and that its blocks lie in the file and on nothing else.

        Raises:
            InvalidImage, Truncated, BlockOverlap: The table has one page, and that is wrong.
        """
        self._claims = claims
        if self.count == 1:
            self.page(0)

    def page(self, number: int) -> Page:
        """Return a page.

        Raises:
            InvalidImage, Truncated, BlockOverlap: It is met for the first time and is wrong.
        """
        return self._kept.get(number) or self._load(number)

    def own(self, number: int) -> Page:
        """Return a page whose entries can be changed one by one."""
        page = self.page(number)
        if isinstance(page.entries, int):
            entries = array("Q", [page.entries]) * self._blocks(number)
            page = Page(entries, page.bitmaps)
            with self._lock:
                self._keep(number, page)
        return page

    def _load(self, number: int) -> Page:
        with self._lock:
            page = self._kept.get(number)
            if page is None:
                page = self._read(number)
                if self._claims is not None and number not in self._checked:
                    self._check(page, number, self._claims)
                    self._checked.add(number)
                self._keep(number, page)
            return page

    def _keep(self, number: int, page: Page) -> None:
        self._kept[number] = page
        if not isinstance(page.entries, int):
            if len(self._mixed) == _KEPT:
                self._kept.pop(self._mixed.pop(0))
            self._mixed.append(number)

    def _blocks(self, number: int) -> int:
        return min(self.page_blocks, self._disk.blocks - number * self.page_blocks)

    def _read(self, number: int) -> Page:
        ratio, blocks = self._disk.chunk_ratio, self._blocks(number)
        offset = self._offset + number * self.page_chunks * (ratio + 1) * ENTRY_SIZE
        count = entry_count(self._disk, blocks)
        if self.count == 1 or any(
            extent.is_data for extent in self._file.extents(offset, count * ENTRY_SIZE)
        ):
            raw = read_words(self._file, offset, count, "Q", "little")
        else:
            raw = array("Q", bytes(ENTRY_SIZE)) * count
        bitmaps = raw[ratio :: ratio + 1]  # one ends each chunk
        del raw[ratio :: ratio + 1]
        del raw[blocks:]
        content = raw.tobytes()
        if state_of(raw[0]) in ABSENT_STATES and content == content[:ENTRY_SIZE] * blocks:
            return Page(raw[0], bitmaps)
        return Page(raw, bitmaps)

    def _check(self, page: Page, number: int, claims: UnitClaims) -> None:
        if self._disk.has_parent:
            self._check_bitmaps(page, number, claims)
        if isinstance(page.entries, int):
            return
        first, ratio = number * self.page_blocks, self._disk.chunk_ratio
        block_size, size = self._disk.block_size, self._disk.virtual_size
        for index, entry in enumerate(page.entries):
            state, block = state_of(entry), first + index
            if state == FULLY_PRESENT or (
                state == PARTIALLY_PRESENT
                and self._disk.has_parent
                and state_of(page.bitmaps[index // ratio]) == FULLY_PRESENT
            ):
                # The last block may be cut where the disk ends: qemu's fixed disks end there.
                length = min(block_size, size - block * block_size)
                claims.claim(block, place_of(entry), length)
            elif state not in ABSENT_STATES:
                why = "without a bitmap" if self._disk.has_parent else "in a disk without a parent"
                raise InvalidImage(
                    f"BAT entry of block {block} is {entry:#018x}: state {state} is not allowed {why}",
                    block=block,
                    state=state,
                )

    def _check_bitmaps(self, page: Page, number: int, claims: UnitClaims) -> None:
        """Check the entries of the sector bitmaps (2.5.1.2)."""
        for index, entry in enumerate(page.bitmaps):
            chunk, state = number * self.page_chunks + index, state_of(entry)
            if state == FULLY_PRESENT:
                claims.claim(chunk, place_of(entry), BITMAP_SIZE, is_bitmap=True)
            elif state != NOT_PRESENT:
                raise InvalidImage(
                    f"BAT entry of the sector bitmap of chunk {chunk} is {entry:#018x}: state"
                    f" {state}, expected {NOT_PRESENT} or {FULLY_PRESENT}",
                    block=chunk * self._disk.chunk_ratio,
                    state=state,
                )
