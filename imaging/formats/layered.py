"""LayeredImage: a differencing disk over its parent, as one disk; knows tables and bitmaps, no format's bytes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from imaging.device import BlockDevice
from imaging.extent import Extent, Kind
from imaging.formats.base import BaseImage, ImageInfo
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.mapped import FileWindows, fill_zeros
from imaging.formats.parents import Parent
from imaging.overlay import OverlayDevice
from imaging.units import MiB

_STEP = 1 * MiB
"""How much of a block of mixed sectors is put together at once."""
_FEW_RUNS = 4
"""Up to so many runs of sectors are read one by one. Of more, both layers are read whole and put together: on
a share every read is a round trip."""


class Owner(Enum):
    """Whose bytes a block has."""

    IMAGE = "image"
    PARENT = "parent"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Neighbouring blocks of the disk that are alike.

    Attributes:
        count: Blocks, at least one; exactly one if MIXED.
        owner: IMAGE hides the parent, PARENT shows it, MIXED asks the bitmap sector by sector.
        kind: Of an IMAGE's blocks: DATA, or how they read as zeros.
        file_offset: Where the first one's bytes begin; meaningless if there are none.
        bitmap_offset: Where the bitmap of a MIXED block begins in the file.
        first_bit: Which of its bits is the block's first sector.
    """

    count: int
    owner: Owner
    kind: Kind = Kind.DATA
    file_offset: int = 0
    bitmap_offset: int = 0
    first_bit: int = 0


class LayerTable(Protocol):
    """Where the blocks are. Everything it says was checked before the image was opened."""

    def layer(self, block: int, limit: int) -> LayerRun:
        """Describe at most `limit` blocks from `block` on; the run may be cut short anywhere."""
        ...


class LayeredImage(BaseImage):
    """Reads and describes a disk whose blocks and sectors are its own or its parent's."""

    def __init__(
        self,
        file: BlockDevice,
        info: ImageInfo,
        table: LayerTable,
        *,
        bitmaps: SectorBitmaps,
        parent: Parent,
    ) -> None:
        """Lay the image in `file` over `parent`, which is closed with it; behind a parent's end are zeros."""
        super().__init__(file, info, owned=(parent,))
        self._table = table
        self._bitmaps = bitmaps
        self._parent = OverlayDevice(parent.image, size=info.virtual_size)

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        for run, inside, length in self._pieces(offset, len(buffer)):
            part = buffer[done : done + length]
            if run.owner is Owner.PARENT:
                self._parent.read_into(offset + done, part)
            elif run.owner is Owner.MIXED:
                self._read_mixed(run, inside, offset + done, part)
            elif run.kind is Kind.DATA:
                self._file.read_into(run.file_offset + inside, part)
            else:
                fill_zeros(part)
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        windows = FileWindows(self._file)
        # One pass over the parent, however many blocks show it: each pass asks its file for holes anew.
        below = Walk(self._parent.extents(offset, length))
        for run, inside, part in self._pieces(offset, length):
            if run.owner is Owner.PARENT:
                yield from below.between(offset, part)
            elif run.owner is Owner.MIXED:
                own = Walk(windows.shown_at(offset, run.file_offset + inside, part))
                start = offset
                for is_own, count in self._sectors(run, inside, part):
                    yield from (own if is_own else below).between(start, count)
                    start += count
            elif run.kind is Kind.DATA:
                yield from windows.shown_at(offset, run.file_offset + inside, part)
            else:
                yield Extent(offset, part, run.kind)
            offset += part

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[LayerRun, int, int]]:
        """Cut a range into (run, first byte inside it, bytes)."""
        block_size = self._info.block_size
        while length:
            block, inside = divmod(offset, block_size)
            run = self._table.layer(block, -(-(inside + length) // block_size))
            part = min(run.count * block_size - inside, length)
            yield run, inside, part
            offset, length = offset + part, length - part

    def _sectors(self, run: LayerRun, inside: int, length: int) -> Iterator[tuple[bool, int]]:
        """Cut a part of a MIXED block into (is in this image, bytes)."""
        size, end = self._info.sector_size, inside + length
        sector = inside // size
        bits = self._bitmaps.runs(
            run.bitmap_offset, run.first_bit + sector, -(-end // size) - sector
        )
        for is_own, count in bits:
            sector += count
            stop = min(sector * size, end)
            yield is_own, stop - inside
            inside = stop

    def _read_mixed(self, run: LayerRun, inside: int, offset: int, buffer: memoryview) -> None:
        for start in range(0, len(buffer), _STEP):
            part = buffer[start : start + _STEP]
            sectors = list(self._sectors(run, inside + start, len(part)))
            if len(sectors) > _FEW_RUNS:
                self._read_both(sectors, run.file_offset + inside + start, offset + start, part)
                continue
            done = start
            for is_own, count in sectors:
                piece = buffer[done : done + count]
                if is_own:
                    self._file.read_into(run.file_offset + inside + done, piece)
                else:
                    self._parent.read_into(offset + done, piece)
                done += count

    def _read_both(
        self, sectors: list[tuple[bool, int]], file_offset: int, offset: int, buffer: memoryview
    ) -> None:
        own = memoryview(bytearray(len(buffer)))
        self._file.read_into(file_offset, own)
        self._parent.read_into(offset, buffer)
        done = 0
        for is_own, count in sectors:
            if is_own:
                buffer[done : done + count] = own[done : done + count]
            done += count


class Walk:
    """Extents of which pieces are taken in order; what lies between the pieces is passed over."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._rest = iter(extents)
        self._held = Extent(0, 0, Kind.HOLE)

    def between(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe a range that begins where the last one ended, or later."""
        end = offset + length
        while offset < end:
            while self._held.end <= offset:
                self._held = next(self._rest)
            stop = min(self._held.end, end)
            yield Extent(offset, stop - offset, self._held.kind)
            offset = stop
