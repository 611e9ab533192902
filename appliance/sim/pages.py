"""PageMap: which byte ranges of a sparse object hold data; pure values, no file behind it."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class PageMap:
    """A set of disjoint ranges, kept as one sorted list of boundaries (start, end, start, end, ...).

    Touching ranges are merged. An offset is inside when an odd number of boundaries lies at or before it.
    """

    def __init__(self) -> None:
        self._bounds: list[int] = []

    def add(self, offset: int, length: int) -> None:
        """Mark a range as holding data."""
        self._replace(offset, offset + length, outside_parity=0)

    def remove(self, offset: int, length: int) -> None:
        """Mark a range as holding nothing."""
        self._replace(offset, offset + length, outside_parity=1)

    def _replace(self, start: int, end: int, *, outside_parity: int) -> None:
        first = bisect_left(self._bounds, start)
        last = bisect_right(self._bounds, end)
        edges = []
        if first % 2 == outside_parity:
            edges.append(start)
        if last % 2 == outside_parity:
            edges.append(end)
        self._bounds[first:last] = edges

    def within(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of the data inside a window, clipped to it, in order."""
        end = offset + length
        index = bisect_right(self._bounds, offset) & ~1
        while index < len(self._bounds) and self._bounds[index] < end:
            start = max(self._bounds[index], offset)
            stop = min(self._bounds[index + 1], end)
            if start < stop:
                yield start, stop - start
            index += 2

    def total(self) -> int:
        """Return the number of bytes that hold data."""
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])
