"""Plain extents: only long runs are worth the question where the file has holes."""

from collections.abc import Iterator

from imaging.extent import Extent, Kind
from imaging.formats.vmdk.sparse import open_sparse
from imaging.formats.vmdk.tables import KeptWindows
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB, pattern
from tests.support.vmdks import SparseVmdk

GRAIN = 64 * KiB


class Asked(MemoryDevice):
    """A file that counts how often it was asked for its holes."""

    asked = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.asked += 1
        return super().extents(offset, length)


def opened(grains: dict[int, bytes]) -> tuple[MemoryDevice, Asked]:
    file = Asked(SparseVmdk(8 * MiB, grains, grain_size=GRAIN).build())
    extent = open_sparse(file, KeptWindows()).image
    file.asked = 0
    return extent, file  # type: ignore[return-value]


def test_holes_below_a_long_run_are_zeros() -> None:
    extent, file = opened({number: pattern(GRAIN, number) for number in range(32)})
    file.zero(file.size - 4 * GRAIN, 4 * GRAIN)
    assert list(extent.extents(0, 8 * MiB)) == [
        Extent(0, 28 * GRAIN, Kind.DATA),
        Extent(28 * GRAIN, 4 * GRAIN, Kind.ZERO),
        Extent(2 * MiB, 6 * MiB, Kind.HOLE),
    ]
    assert file.asked == 1


def test_nobody_is_asked_about_grains_in_disorder() -> None:
    extent, file = opened({number * 7 % 32: pattern(GRAIN, number) for number in range(32)})
    assert list(extent.extents(0, 8 * MiB)) == [
        Extent(0, 2 * MiB, Kind.DATA),
        Extent(2 * MiB, 6 * MiB, Kind.HOLE),
    ]
    assert file.asked == 0
