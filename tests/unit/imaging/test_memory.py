"""MemoryDevice beyond the contract: what is a hole."""

from imaging.extent import Extent, Kind
from imaging.memory import MemoryDevice

PAGE = 4096


def test_only_what_was_written_is_data() -> None:
    device = MemoryDevice(4 * PAGE)
    device.write(PAGE + 10, b"x")
    assert list(device.extents(0, 4 * PAGE)) == [
        Extent(0, PAGE, Kind.HOLE),
        Extent(PAGE, PAGE, Kind.DATA),
        Extent(2 * PAGE, 2 * PAGE, Kind.HOLE),
    ]


def test_given_content_is_data_even_where_it_is_zeros() -> None:
    assert list(MemoryDevice(bytes(PAGE + 1)).extents(0, PAGE + 1)) == [
        Extent(0, PAGE + 1, Kind.DATA)
    ]


def test_only_whole_zeroed_pages_become_holes() -> None:
    device = MemoryDevice(b"x" * (3 * PAGE + 100))
    device.zero(PAGE - 1, 2 * PAGE + 51)
    assert list(device.extents(0, device.size)) == [
        Extent(0, PAGE, Kind.DATA),
        Extent(PAGE, 2 * PAGE, Kind.HOLE),
        Extent(3 * PAGE, 100, Kind.DATA),
    ]
    device.zero(3 * PAGE, 100)
    assert [extent.kind for extent in device.extents(PAGE, 2 * PAGE + 100)] == [Kind.HOLE]
