"""Extents of a virtual disk: ranges of data, zeros and holes as pure values; does no I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import NamedTuple


class Kind(Enum):
    """What a range of the virtual disk is made of."""

    DATA = "data"
    ZERO = "zero"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Extent:
    """One range of a virtual disk.

    Attributes:
        offset: First byte, from byte 0 of the virtual disk.
        length: Bytes, always > 0.
        kind: DATA must be read; ZERO reads as zeros; HOLE is unallocated and reads as zeros too.
    """

    offset: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        """First byte behind the extent."""
        return self.offset + self.length

    @property
    def is_data(self) -> bool:
        """Whether the bytes have to be read to be known."""
        return self.kind is Kind.DATA


def coalesce(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of the same kind; the input must be ordered and free of overlaps."""
    held: Extent | None = None
    for extent in extents:
        if held is None:
            held = extent
        elif held.kind is extent.kind and held.end == extent.offset:
            held = Extent(held.offset, held.length + extent.length, held.kind)
        else:
            yield held
            held = extent
    if held is not None:
        yield held


def clip(extents: Iterable[Extent], offset: int, length: int) -> Iterator[Extent]:
    """Cut ordered extents to the window (offset, length)."""
    stop = offset + length
    for extent in extents:
        start, end = max(extent.offset, offset), min(extent.end, stop)
        if start < end:
            yield Extent(start, end - start, extent.kind)


class Cell(NamedTuple):
    """One cell of a fixed grid over a disk, with data in it.

    Attributes:
        offset: First byte, a multiple of the cell's size.
        length: Bytes; shorter than the grid's only at the end of the disk.
        parts: (offset, length) of the data inside, ordered, at least one; the rest reads as zeros.
    """

    offset: int
    length: int
    parts: tuple[tuple[int, int], ...]


def cells(extents: Iterable[Extent], size: int, cell: int) -> Iterator[Cell]:
    """Cut the data of a disk of `size` bytes into cells of `cell` bytes; lazy, in order, without those that hold none.

    Args:
        extents: Ordered; asked for one at a time, never again.
        size: Bytes of the disk.
        cell: Bytes of a cell.
    """
    for number, parts in groupby(_parts(extents, cell), lambda part: part[0] // cell):
        start = number * cell
        yield Cell(start, min(cell, size - start), tuple(parts))


def _parts(extents: Iterable[Extent], cell: int) -> Iterator[tuple[int, int]]:
    """Cut data at the borders of cells."""
    for extent in extents:
        offset, end = extent.offset, extent.end
        while extent.is_data and offset < end:
            stop = min((offset // cell + 1) * cell, end)
            yield offset, stop - offset
            offset = stop


def data_bytes(extents: Iterable[Extent]) -> int:
    """Return how many bytes of `extents` are data."""
    return sum(extent.length for extent in extents if extent.is_data)
