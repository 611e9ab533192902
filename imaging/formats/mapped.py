"""MappedImage: a virtual disk whose blocks lie anywhere in the file; knows tables, no format's bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from imaging.device import BlockDevice
from imaging.extent import Extent, Kind, clip
from imaging.formats.base import BaseImage, ImageInfo
from imaging.units import MiB

_ZEROS = memoryview(bytes(1 * MiB))
_WINDOW = 64 * MiB
_KEPT_WINDOWS = 8
"""How the file is asked for its holes: a dynamic VHD has a gap behind every block, so asking block by
block would cost a share one round trip for each 2 MiB."""


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Neighbouring blocks of the disk that are neighbours in the file too, or are all not there.

    Attributes:
        count: Blocks, at least one.
        kind: DATA, or how they read as zeros.
        file_offset: Where the first one's bytes begin; meaningless unless DATA.
    """

    count: int
    kind: Kind
    file_offset: int


class BlockTable(Protocol):
    """Where the blocks are. Everything it says was checked before the image was opened."""

    def lookup(self, block: int, limit: int) -> BlockRun:
        """Describe at most `limit` blocks from `block` on; the run may be cut short anywhere."""
        ...


class MappedImage(BaseImage):
    """Reads and describes a disk through its block table."""

    def __init__(self, file: BlockDevice, info: ImageInfo, table: BlockTable) -> None:
        super().__init__(file, info)
        self._table = table

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        for kind, length, file_offset in self._runs(offset, len(buffer)):
            part = buffer[done : done + length]
            if kind is Kind.DATA:
                self._file.read_into(file_offset, part)
            else:
                fill_zeros(part)
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        windows = FileWindows(self._file)
        for kind, run_length, file_offset in self._runs(offset, length):
            if kind is Kind.DATA:
                yield from windows.shown_at(offset, file_offset, run_length)
            else:
                yield Extent(offset, run_length, kind)
            offset += run_length

    def _runs(self, offset: int, length: int) -> Iterator[tuple[Kind, int, int]]:
        """Cut a range into (kind, length, file offset), longest runs first come first served."""
        block_size = self._info.block_size
        while length:
            block, inside = divmod(offset, block_size)
            run = self._table.lookup(block, -(-(inside + length) // block_size))
            part = min(run.count * block_size - inside, length)
            yield run.kind, part, run.file_offset + inside
            offset, length = offset + part, length - part


class FileWindows:
    """The file's extents, asked for by whole windows of which the last few are remembered.

    One object serves one pass over the disk, so it needs no lock and no memory outlives the pass.
    """

    def __init__(self, file: BlockDevice) -> None:
        self._file = file
        self._kept: dict[int, list[Extent]] = {}

    def shown_at(self, offset: int, file_offset: int, length: int) -> Iterator[Extent]:
        """Describe a range of the file that an allocated block shows at `offset` of the disk.

        A hole of the file inside an allocated block reads as zeros for certain.
        """
        for extent in self._extents(file_offset, length):
            kind = Kind.DATA if extent.is_data else Kind.ZERO
            yield Extent(extent.offset - file_offset + offset, extent.length, kind)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for number in range(offset // _WINDOW, -(-(offset + length) // _WINDOW)):
            yield from clip(self._window(number), offset, length)

    def _window(self, number: int) -> list[Extent]:
        found = self._kept.get(number)
        if found is None:
            if len(self._kept) == _KEPT_WINDOWS:
                del self._kept[next(iter(self._kept))]
            start = number * _WINDOW
            found = list(self._file.extents(start, min(_WINDOW, self._file.size - start)))
            self._kept[number] = found
        return found


def fill_zeros(buffer: memoryview) -> None:
    """Zero the whole buffer without allocating another of its size."""
    for start in range(0, len(buffer), len(_ZEROS)):
        part = buffer[start : start + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]
