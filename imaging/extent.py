"""Extents of a virtual disk: ranges of data, zeros and holes as pure values; does no I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


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


def data_bytes(extents: Iterable[Extent]) -> int:
    """Return how many bytes of `extents` are data."""
    return sum(extent.length for extent in extents if extent.is_data)
