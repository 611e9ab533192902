"""Sector bitmaps: bit order, runs over the borders of windows, and how little is read and kept."""

import pytest

from imaging.formats.bitmaps import SectorBitmaps, binary_digits
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB


class Counting(MemoryDevice):
    reads = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads += 1
        super().read_into(offset, buffer)


def joined(runs):
    """Join neighbours that are alike."""
    out: list[tuple[bool, int]] = []
    for is_set, count in runs:
        if out and out[-1][0] == is_set:
            out[-1] = (is_set, out[-1][1] + count)
        else:
            out.append((is_set, count))
    return out


@pytest.mark.parametrize(
    ("msb_first", "digits"), [(True, "0000000101000000"), (False, "1000000000000010")]
)
def test_the_first_sector_is_the_lowest_or_the_highest_bit(msb_first: bool, digits: str) -> None:
    assert binary_digits(b"\x01\x40", msb_first=msb_first) == digits


def test_runs_begin_and_end_anywhere() -> None:
    bitmaps = SectorBitmaps(MemoryDevice(b"??" + b"\xf0\xff\x0f"), size=3, msb_first=False)
    assert list(bitmaps.runs(2, 0, 24)) == [(False, 4), (True, 16), (False, 4)]
    assert list(bitmaps.runs(2, 3, 2)) == [(False, 1), (True, 1)]
    assert list(bitmaps.runs(2, 5, 0)) == []


def test_a_bitmap_is_read_in_windows_and_each_once() -> None:
    file = Counting(b"\xff" * (MiB - 1) + b"\x7f")
    bitmaps = SectorBitmaps(file, size=MiB, msb_first=False)
    window = 16 * KiB * 8
    assert joined(bitmaps.runs(0, window - 5, 10)) == [(True, 10)]
    assert file.reads == 2
    assert joined(bitmaps.runs(0, window - 9, 18)) == [(True, 18)]
    assert file.reads == 2
    assert joined(bitmaps.runs(0, 0, MiB * 8)) == [(True, MiB * 8 - 1), (False, 1)]
    assert len(bitmaps._kept) == 8


def test_the_oldest_window_is_forgotten_first() -> None:
    file = Counting(bytes(16 * 512))
    bitmaps = SectorBitmaps(file, size=512, msb_first=True)
    for number in [*range(8), 0, 8, 0]:  # 0 was used again, so 8 takes the place of 1
        list(bitmaps.runs(number * 512, 0, 8))
    assert file.reads == 9
