"""SpanMap: finds blocks that overlap each other or the metadata, in memory bounded by the file's size.

Sorting a million block offsets as Python objects would cost more memory than a job has.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from imaging.errors import BlockOverlap, InvalidImage, Truncated

_MAX_SLOTS = 1 << 27
"""512 MiB of address space, of which only touched pages become memory: 128 TiB of 1 MiB blocks."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """A range of the image file that something owns; `name` is for messages."""

    offset: int
    length: int
    name: str

    @property
    def end(self) -> int:
        """First byte behind the range."""
        return self.offset + self.length


def require_apart(ranges: Iterable[FileRange], file_size: int) -> list[FileRange]:
    """Sort ranges by offset; refuse those that overlap or leave the file.

    Raises:
        Truncated: A range ends behind the file.
        BlockOverlap: Two ranges share a byte.
    """
    ordered = sorted(ranges, key=lambda item: item.offset)
    for item in ordered:
        if item.end > file_size:
            raise Truncated(
                f"{item.name} ends at file offset {item.end}, but the file has {file_size} bytes",
                offset=item.offset,
                file_size=file_size,
            )
    for left, right in pairwise(ordered):
        if left.end > right.offset:
            raise BlockOverlap(
                f"{right.name} begins at file offset {right.offset}, inside {left.name}"
                f" ({left.offset} to {left.end})",
                offset=right.offset,
            )
    return ordered


class SpanMap:
    """Collects the file ranges of all blocks of an image and refuses the first that is not its own.

    Blocks have one length (`span`), so a block can only overlap those that begin in the same slot of
    `span` bytes or in a neighbouring one. Memory: 4 bytes for each slot that a block begins in.
    """

    def __init__(
        self, file_size: int, *, span: int, unit: int, reserved: Iterable[FileRange]
    ) -> None:
        """Prepare an empty map.

        Args:
            file_size: Bytes of the image file.
            span: Bytes of a block in the file, a multiple of `unit`.
            unit: Every block begins at a multiple of this.
            reserved: Metadata that no block may touch.
        """
        slots = file_size // span + 3
        if slots > _MAX_SLOTS:
            raise InvalidImage(
                f"blocks of {span} bytes are too small for a file of {file_size} bytes",
                file_size=file_size,
            )
        self._file_size = file_size
        self._span = span
        self._span_units = span // unit
        self._unit = unit
        self._reserved = require_apart(reserved, file_size)
        self._reserved_ends = [item.end for item in self._reserved]
        # Slot n holds the begin of its block in units, plus one so that 0 means free.
        self._slots = memoryview(mmap.mmap(-1, slots * 4)).cast("I")

    def claim(self, block: int, offset: int, length: int) -> None:
        """Give `length` bytes (of the span) at file offset `offset` to `block`.

        Raises:
            Truncated: They are not inside the file.
            BlockOverlap: They are not free.
        """
        if offset + length > self._file_size:
            raise Truncated(
                f"block {block} ends at file offset {offset + length}, but the file has"
                f" {self._file_size} bytes",
                block=block,
                offset=offset,
                file_size=self._file_size,
            )
        index = bisect_right(self._reserved_ends, offset)
        if index < len(self._reserved) and self._reserved[index].offset < offset + length:
            raise self._reserved_error(block, offset, self._reserved[index])
        slots, slot = self._slots, offset // self._span + 1
        begin, span = offset // self._unit + 1, self._span_units
        for other in (slots[slot - 1], slots[slot], slots[slot + 1]):
            if other and -span < other - begin < span:
                raise self._taken_error(block, offset, (other - 1) * self._unit)
        slots[slot] = begin

    def _reserved_error(self, block: int, offset: int, item: FileRange) -> BlockOverlap:
        return BlockOverlap(
            f"block {block} at file offset {offset} overlaps {item.name}"
            f" ({item.offset} to {item.end})",
            block=block,
            offset=offset,
        )

    def _taken_error(self, block: int, offset: int, other: int) -> BlockOverlap:
        return BlockOverlap(
            f"block {block} at file offset {offset} overlaps another block at {other}",
            block=block,
            offset=offset,
        )
