"""SectorBitmaps: which sectors of a block are in a differencing image, read in windows; knows no format's tables.

[MS-VHDX] 2.4 puts the first sector into the lowest bit of a byte, the VHD specification into the highest.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator

from imaging.device import BlockDevice, read_bytes
from imaging.units import KiB

_WINDOW = 16 * KiB
"""Bytes of a bitmap that are read at once: they speak for 64 MiB of a disk of 512-byte sectors."""
_KEPT_WINDOWS = 8
"""A kept window has a character for each bit, so an image keeps at most 1 MiB, a chain of 32 images 32 MiB."""


class SectorBitmaps:
    """The bitmaps of one image. Thread-safe; two threads may read the same window at once."""

    def __init__(self, file: BlockDevice, *, size: int, msb_first: bool) -> None:
        """Read nothing yet.

        Args:
            file: Holds the bitmaps.
            size: Bytes of each bitmap.
            msb_first: Whether the first sector is the highest bit of a byte, as in VHD.
        """
        self._file = file
        self._size = size
        self._msb_first = msb_first
        self._kept: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def runs(self, file_offset: int, first: int, count: int) -> Iterator[tuple[bool, int]]:
        """Cut bits that are alike into runs (is set, bits); neighbouring runs may be alike at a window's border.

        Args:
            file_offset: Where the bitmap begins in the file.
            first: The first bit, counted in sectors from the bitmap's begin.
            count: Bits, all inside the bitmap.
        """
        end = first + count
        while first < end:
            number, index = divmod(first, _WINDOW * 8)
            digits = self._digits(file_offset, number)
            stop = min(index + end - first, len(digits))
            first += stop - index
            while index < stop:
                is_set = digits[index] == "1"
                edge = digits.find("0" if is_set else "1", index, stop)
                edge = stop if edge < 0 else edge
                yield is_set, edge - index
                index = edge

    def assign(self, file_offset: int, first: int, count: int, *, to: bool) -> None:
        """Set bits, or clear them, in the file too; whole bytes between the ends are not read.

        Args:
            file_offset: Where the bitmap begins in the file.
            first: The first bit, counted in sectors from the bitmap's begin.
            count: Bits, all inside the bitmap.
            to: What they become.
        """
        start, stop = first // 8, -(-(first + count) // 8)
        content = bytearray((b"\xff" if to else b"\0") * (stop - start))
        for at in {start, stop - 1}:  # the bytes of which some bits are others'
            old = read_bytes(self._file, file_offset + at, 1)[0]
            inside = range(max(first, at * 8), min(first + count, at * 8 + 8))
            mask = sum(self._bit(bit % 8) for bit in inside)
            content[at - start] = old | mask if to else old & ~mask
        self._file.write(file_offset + start, bytes(content))
        with self._lock:
            for number in range(start // _WINDOW, (stop - 1) // _WINDOW + 1):
                self._kept.pop((file_offset, number), None)

    def _bit(self, number: int) -> int:
        return 0x80 >> number if self._msb_first else 1 << number

    def _digits(self, file_offset: int, number: int) -> str:
        key = (file_offset, number)
        with self._lock:
            digits = self._kept.get(key)
            if digits is not None:
                self._kept.move_to_end(key)
                return digits
        start = number * _WINDOW
        raw = read_bytes(self._file, file_offset + start, min(_WINDOW, self._size - start))
        digits = binary_digits(raw, msb_first=self._msb_first)
        with self._lock:
            self._kept[key] = digits
            if len(self._kept) > _KEPT_WINDOWS:
                self._kept.popitem(last=False)
        return digits


def binary_digits(raw: bytes, *, msb_first: bool) -> str:
    """Return a bitmap as a string of 0 and 1, the first sector first: str.find is a run finder in C."""
    if msb_first:
        return format(int.from_bytes(raw, "big"), f"0{len(raw) * 8}b")
    return format(int.from_bytes(raw, "little"), f"0{len(raw) * 8}b")[::-1]
