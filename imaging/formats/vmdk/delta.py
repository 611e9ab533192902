"""DeltaExtent: one extent of a delta link, its holes read from the parent; opens neither of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from imaging.device import BlockDevice
from imaging.extent import Extent, Kind
from imaging.formats.base import BaseImage
from imaging.formats.vmdk.sparse import SparseExtent


@dataclass(frozen=True, slots=True)
class _Run:
    offset: int
    length: int
    is_here: bool


class DeltaExtent(BaseImage):
    """A sparse extent over the same range of the parent. A grain of zeros hides the parent, a hole does not."""

    def __init__(self, file: BlockDevice, top: SparseExtent, below: BlockDevice) -> None:
        """Lay the extent `top`, which lies in `file`, over `below`, which is at least as long."""
        super().__init__(file, top.image.info, owned=[top.image])
        self._top = top.image
        self._tables = top.tables
        self._below = below

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        for run in self._runs(offset, len(buffer)):
            source = self._top if run.is_here else self._below
            start = run.offset - offset
            source.read_into(run.offset, buffer[start : start + run.length])

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for run in self._runs(offset, length):
            source = self._top if run.is_here else self._below
            yield from source.extents(run.offset, run.length)

    def _runs(self, offset: int, length: int) -> Iterator[_Run]:
        size, end = self._info.block_size, offset + length
        while offset < end:
            grain = offset // size
            run = self._tables.alike(grain, -(-end // size) - grain)
            stop = min((grain + run.count) * size, end)
            yield _Run(offset, stop - offset, run.kind is not Kind.HOLE)
            offset = stop
