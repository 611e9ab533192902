"""The copy plan: which chunks of a virtual disk have to be read, in order. Pure; extents in, chunks out.

Chunks lie on a fixed grid, so the same disk gives the same chunks in every attempt, and a receipt names one for good.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imaging.extent import Extent, cells


@dataclass(frozen=True, slots=True)
class Chunk:
    """One cell of the grid that holds data.

    Attributes:
        offset: First byte, a multiple of the chunk size.
        length: Bytes; shorter than the chunk size only at the end of the disk.
        ranges: (offset, length) of the data inside, ordered; the rest reads as zeros and is not read.
    """

    offset: int
    length: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def data_bytes(self) -> int:
        """Bytes that have to be read."""
        return sum(length for _, length in self.ranges)


@dataclass(frozen=True, slots=True)
class Gap:
    """Whole cells without data: they read as zeros and are neither read nor sent."""

    offset: int
    length: int


def plan_chunks(extents: Iterable[Extent], size: int, chunk: int) -> Iterator[Chunk | Gap]:
    """Cut ordered extents of a disk of `size` bytes into cells of `chunk` bytes; lazy, in order, without gaps."""
    cursor = 0
    for cell in cells(extents, size, chunk):
        if cell.offset > cursor:
            yield Gap(cursor, cell.offset - cursor)
        yield Chunk(*cell)
        cursor = cell.offset + chunk
    if cursor < size:
        yield Gap(cursor, size - cursor)
