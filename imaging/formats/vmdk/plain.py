"""Read a sparse VMDK extent whose grains are not compressed; its tables were checked before."""

from collections.abc import Iterator

from imaging.extent import Extent, Kind
from imaging.formats.mapped import MappedImage
from imaging.units import MiB

_MIN_RUN = 1 * MiB
"""Grains of a disk that was used for a while lie in any order: to ask a share for the holes below each would be a round
trip for 64 KiB, and writers fill the grains that they allocate."""


class PlainExtent(MappedImage):
    """The extent as a disk of its own."""

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for kind, run_length, _ in self._runs(offset, length):
            if kind is Kind.DATA and run_length >= _MIN_RUN:
                yield from super()._extents(offset, run_length)
            else:
                yield Extent(offset, run_length, kind)
            offset += run_length
