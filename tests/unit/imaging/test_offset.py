"""OffsetDevice: a window is a device of its own, and never larger than its base. (The contract suite asks the rest.)"""

import pytest

from imaging.device import read_bytes
from imaging.errors import OutOfRange, ReadOnlyDevice
from imaging.extent import Extent, Kind
from imaging.memory import MemoryDevice
from imaging.offset import OffsetDevice
from tests.support.disks import KiB, pattern


@pytest.mark.parametrize("window", [(-1, 4), (0, 9), (8, 1), (9, 0), (2, 7)], ids=str)
def test_a_window_that_leaves_its_base_is_refused(window: tuple[int, int]) -> None:
    with pytest.raises(OutOfRange):
        OffsetDevice(MemoryDevice(8), *window)


def test_what_is_written_lies_in_the_base_and_nowhere_else() -> None:
    base = MemoryDevice(pattern(3 * KiB))
    window = OffsetDevice(base, KiB, KiB)
    window.write(1, b"here")
    window.zero(1000, 24)
    expected = bytearray(pattern(3 * KiB))
    expected[KiB + 1 : KiB + 5] = b"here"
    expected[KiB + 1000 : 2 * KiB] = bytes(24)
    assert read_bytes(base, 0, 3 * KiB) == bytes(expected)


def test_extents_count_from_the_window_and_end_with_it() -> None:
    base = MemoryDevice(64 * KiB)
    base.write(8 * KiB, pattern(4 * KiB))
    window = OffsetDevice(base, 2 * KiB, 20 * KiB)
    assert list(window.extents(0, 20 * KiB)) == [
        Extent(0, 6 * KiB, Kind.HOLE),
        Extent(6 * KiB, 4 * KiB, Kind.DATA),
        Extent(10 * KiB, 10 * KiB, Kind.HOLE),
    ]
    assert list(window.extents(7 * KiB, KiB)) == [Extent(7 * KiB, KiB, Kind.DATA)]


def test_the_base_stays_open_and_its_rules_are_the_windows() -> None:
    base = MemoryDevice(pattern(KiB), read_only=True)
    window = OffsetDevice(base, 0, KiB)
    with pytest.raises(ReadOnlyDevice):
        window.write(0, b"x")
    window.close()
    assert read_bytes(base, 0, 4) == pattern(4)
