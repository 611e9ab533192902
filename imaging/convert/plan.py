"""The copy plan: which digest blocks of a disk are read, in runs that a worker takes. Pure; extents in, steps out.

Runs and blocks lie on a fixed grid, so the same disk is cut in the same way each time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from imaging.extent import Extent


class Unit(NamedTuple):
    """One digest block that holds data.

    Attributes:
        offset: First byte, a multiple of the block size.
        length: Bytes; shorter than the block size only at the end of the disk.
        parts: (offset, length) of the data inside, ordered, at least one; the rest reads as zeros.
    """

    offset: int
    length: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the grid with data in it; its blocks without data have no unit."""

    offset: int
    length: int
    units: tuple[Unit, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Whole cells without data: they read as zeros and are not read."""

    offset: int
    length: int


def plan_runs(
    extents: Iterable[Extent], size: int, *, block: int, run: int, start: int = 0
) -> Iterator[Run | Gap]:
    """Cut ordered extents of a disk of `size` bytes into cells of `run` bytes; lazy, in order, without gaps.

    Args:
        extents: Asked for one at a time, never again.
        size: Bytes of the disk.
        block: Bytes of a digest block.
        run: Bytes of a cell, a multiple of `block`.
        start: Where to begin, a border of cells; no extent begins before it.
    """
    cursor = start
    for cell, units in groupby(_units(extents, size, block), lambda unit: unit.offset // run):
        first = cell * run
        if first > cursor:
            yield Gap(cursor, first - cursor)
        cursor = min(first + run, size)
        yield Run(first, cursor - first, tuple(units))
    if cursor < size:
        yield Gap(cursor, size - cursor)


def _units(extents: Iterable[Extent], size: int, block: int) -> Iterator[Unit]:
    for number, parts in groupby(_parts(extents, block), lambda part: part[0] // block):
        start = number * block
        yield Unit(start, min(block, size - start), tuple(parts))


def _parts(extents: Iterable[Extent], block: int) -> Iterator[tuple[int, int]]:
    """Cut data at the borders of blocks."""
    for extent in extents:
        offset, end = extent.offset, extent.end
        while extent.is_data and offset < end:
            stop = min((offset // block + 1) * block, end)
            yield offset, stop - offset
            offset = stop
