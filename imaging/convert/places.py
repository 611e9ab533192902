"""Places: where the blocks of a new image lie, in the order in which they are first written. Knows no format."""

import threading
from array import array
from collections.abc import Iterator

_PAGE = 2048
"""Blocks that are remembered together: 8 KiB."""


class Places:
    """The places 0, 1, 2, ... of blocks; any thread may ask.

    Memory: 4 bytes for each block of a page in which a block has a place.
    """

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}  # place plus one; 0: none
        self._lock = threading.Lock()
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
            return self.count - 1, True

    def pages(self) -> Iterator[tuple[int, "array[int]"]]:
        """Describe the pages that have places, in order, as (first block, place plus one or 0 of each block)."""
        for number in sorted(self._pages):
            yield number * _PAGE, self._pages[number]
