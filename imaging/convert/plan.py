"""The copy plan: which digest blocks of a disk are read, in runs that a worker takes. Pure; extents in, steps out.

Runs and blocks lie on a fixed grid, so the same disk is cut in the same way each time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from imaging.extent import Cell, Extent, cells
from imaging.units import MiB

RUN = 2 * MiB
"""What a worker takes at a time: no larger than a block of any format that places blocks at their first write."""


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the grid with data in it.

    Attributes:
        offset: First byte.
        length: Bytes.
        units: Its digest blocks that hold data.
    """

    offset: int
    length: int
    units: tuple[Cell, ...]


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
    for cell, units in groupby(cells(extents, size, block), lambda unit: unit.offset // run):
        first = cell * run
        if first > cursor:
            yield Gap(cursor, first - cursor)
        cursor = min(first + run, size)
        yield Run(first, cursor - first, tuple(units))
    if cursor < size:
        yield Gap(cursor, size - cursor)
