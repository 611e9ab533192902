"""Places: where the blocks of a new image lie, in the order in which they are first written. Knows no format."""

import threading
from array import array
from collections.abc import Iterable, Iterator

from imaging.errors import JournalInvalid

_PAGE = 2048
"""Blocks that are remembered together: 8 KiB."""


class Places:
    """The places 0, 1, 2, ... of blocks; any thread may ask.

    Memory: 4 bytes for each block of a page in which a block has a place.
    """

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}  # place plus one; 0: none
        self._lock = threading.Lock()
        self._fresh: array[int] | None = None
        self.count = 0

    def find(self, block: int) -> tuple[int, bool]:
        """Return the place of a block, and whether it got it just now."""
        number, index = divmod(block, _PAGE)
        page = self._pages.get(number)
        if page is not None and page[index]:
            return page[index] - 1, False
        with self._lock:
            page = self._pages.setdefault(number, array("I", bytes(4 * _PAGE)))
            if page[index]:
                return page[index] - 1, False
            self.count += 1
            page[index] = self.count
            if self._fresh is not None:
                self._fresh.append(block)
            return self.count - 1, True

    def restore(self, blocks: Iterable[int], *, limit: int) -> None:
        """Give the first places to `blocks`, in that order, and from now on remember who gets one (`fresh`).

        Args:
            blocks: As `fresh` told them.
            limit: Blocks of the disk.

        Raises:
            JournalInvalid: A block comes twice, or is none of the disk.
        """
        for block in blocks:
            if block >= limit or not self.find(block)[1]:
                raise JournalInvalid(f"block {block} (of {limit}) gets a place twice, or never")
        self._fresh = array("Q")

    def fresh(self) -> "array[int]":
        """Return the blocks that got places since the last call, in the order of the places; nobody asks meanwhile."""
        fresh, self._fresh = self._fresh, array("Q")
        return fresh if fresh is not None else array("Q")

    def pages(self) -> Iterator[tuple[int, "array[int]"]]:
        """Describe the pages that have places, in order, as (first block, place plus one or 0 of each block)."""
        for number in sorted(self._pages):
            yield number * _PAGE, self._pages[number]
