"""The copy plan: which chunks of a virtual disk have to be read, in order. Pure; extents in, chunks out.

Chunks lie on a fixed grid, so the same disk gives the same chunks in every attempt, and a receipt names one for good.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imaging.extent import Extent


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
    cell: int | None = None
    ranges: list[tuple[int, int]] = []
    for offset, length in _pieces(extents, chunk):
        start = offset // chunk * chunk
        if start != cell:
            if cell is not None:
                yield Chunk(cell, min(chunk, size - cell), tuple(ranges))
                cursor = cell + chunk
            if start > cursor:
                yield Gap(cursor, start - cursor)
            cell, ranges = start, []
        ranges.append((offset, length))
    if cell is not None:
        yield Chunk(cell, min(chunk, size - cell), tuple(ranges))
        cursor = cell + chunk
    if cursor < size:
        yield Gap(cursor, size - cursor)


def _pieces(extents: Iterable[Extent], chunk: int) -> Iterator[tuple[int, int]]:
    for extent in extents:
        if not extent.is_data:
            continue
        offset = extent.offset
        while offset < extent.end:
            length = min(extent.end, (offset // chunk + 1) * chunk) - offset
            yield offset, length
            offset += length
