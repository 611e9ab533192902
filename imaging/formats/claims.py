"""UnitClaims: who owns which unit of an image file; finds blocks that overlap, in whatever order they are met.

For formats whose structures all begin at multiples of one unit, and whose tables are too long to be looked at at once.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterable

from imaging.errors import BlockOverlap, InvalidImage, Truncated
from imaging.formats.spans import FileRange, require_apart

_METADATA, _BLOCK, _BITMAP = b"\1", b"\2", b"\3"
_NAMES = {_BLOCK: "block", _BITMAP: "the sector bitmap of chunk"}
_MAX_UNITS = 1 << 28
"""Bytes of address space, of which only touched pages become memory: 256 TiB in units of 1 MiB."""


class UnitClaims:
    """The units of a file, each free or taken. Memory: a byte for each unit, where any near it is taken."""

    def __init__(self, file_size: int, *, unit: int, reserved: Iterable[FileRange]) -> None:
        """Begin with what the metadata own.

        Raises:
            Truncated, BlockOverlap: Of the metadata alone.
            InvalidImage: The file is longer than any image.
        """
        units = -(-file_size // unit) + 1
        if units > _MAX_UNITS:
            raise InvalidImage(
                f"the file has {file_size} bytes, more than any image", file_size=file_size
            )
        self._file_size = file_size
        self._unit = unit
        self._taken = mmap.mmap(-1, units)
        self._reserved = require_apart(reserved, file_size)
        self._reserved_ends = [item.end for item in self._reserved]
        for item in self._reserved:
            self._take(item.offset, item.length)

    def claim(self, block: int, offset: int, length: int, *, is_bitmap: bool = False) -> None:
        """Give a range of the file to a block.

        Args:
            block: Its number, for messages.
            offset: A multiple of the unit.
            length: Bytes; the rest of its last unit is its own, too.
            is_bitmap: Whether the number is that of a chunk, and the range its sector bitmap; for messages.

        Raises:
            Truncated: The range is not inside the file.
            BlockOverlap: It is not free.
        """
        if offset + length > self._file_size:
            what = _NAMES[_BITMAP if is_bitmap else _BLOCK]
            raise Truncated(
                f"{what} {block} ends at file offset {offset + length}, but the file has {self._file_size} bytes",
                block=block,
                offset=offset,
                file_size=self._file_size,
            )
        first, last = offset // self._unit, -(-(offset + length) // self._unit)
        rest = self._taken[first:last].lstrip(b"\0")
        if rest:
            what, owner = _NAMES[_BITMAP if is_bitmap else _BLOCK], self._owner(last - len(rest))
            raise BlockOverlap(
                f"{what} {block} at file offset {offset} overlaps {owner}",
                block=block,
                offset=offset,
            )
        self._taken[first:last] = (_BITMAP if is_bitmap else _BLOCK) * (last - first)

    def _take(self, offset: int, length: int) -> None:
        first, last = offset // self._unit, -(-(offset + length) // self._unit)
        self._taken[first:last] = _METADATA * (last - first)

    def _owner(self, unit: int) -> str:
        kind, offset = self._taken[unit : unit + 1], unit * self._unit
        if kind != _METADATA:
            return f"{'another block' if kind == _BLOCK else 'a sector bitmap'} at {offset}"
        item = self._reserved[bisect_right(self._reserved_ends, offset)]
        return f"{item.name} ({item.offset} to {item.end})"
