"""The sinks of VHDX, dynamic and fixed ([MS-VHDX]): where blocks lie, and the BAT that says so; no parent."""

from collections.abc import Iterable, Sequence

from imaging.convert.options import Options
from imaging.convert.places import Places
from imaging.convert.vhdx_frame import BAT_OFFSET, own_guid, write_headers, write_metadata
from imaging.formats.vhdx.entries import (
    ENTRY_SIZE,
    build_entries,
    entry_count,
    entry_index,
)
from imaging.formats.vhdx.layout import DiskParameters, build_metadata
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, MiB, round_up

_BLOCK_SIZE = 2 * MiB
"""Close to the data; Windows' own 32 MiB would make a sparse disk many times larger."""
_MAX_BLOCKS = 1 << 23
"""Beyond it (16 TiB) blocks are larger: readers hold the BAT in memory, 64 MiB are enough."""
_FIXED_PAGE = 1 << 15
"""Blocks whose entries are built at a time."""


class _VhdxSink:
    """What both have in common: everything but where the blocks lie."""

    def __init__(self, file: OutputFile, size: int, options: Options, *, is_fixed: bool) -> None:
        block_size = _BLOCK_SIZE
        while size > block_size * _MAX_BLOCKS:
            block_size *= 2
        self._disk = DiskParameters(block_size, is_fixed, False, size, options.sector_size)  # noqa: FBT003
        bat_length = round_up(entry_count(self._disk, self._disk.blocks) * ENTRY_SIZE, MiB)
        self._first = BAT_OFFSET + bat_length
        self._block_size = block_size
        self._file = file
        self._id = options.unique_id

    def placed(self) -> Sequence[int]:
        """See `ResumableSink`."""
        return ()

    def _unmake(self) -> None:
        """Make no VHDX of it: that of a run that ended while it finished."""
        self._file.write(0, bytes(SECTOR_SIZE))

    def _write_entries(self, first: int, offsets: Sequence[int]) -> None:
        at = BAT_OFFSET + entry_index(first, self._disk) * ENTRY_SIZE
        self._file.write(at, build_entries(self._disk, first, offsets))

    def _write_metadata(self) -> None:
        metadata = build_metadata(self._disk, disk_id=own_guid(self._id, "disk"))
        write_metadata(self._file, metadata, bat_length=self._first - BAT_OFFSET)

    def _write_headers(self) -> None:
        """Make a VHDX of it, at last."""
        write_headers(self._file, self._id)


class DynamicVhdxSink(_VhdxSink):
    """A dynamic VHDX; a block of zeros is not in the file. Memory: see `Places`."""

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        super().__init__(file, size, options, is_fixed=False)
        self._places = Places()

    def restore(self, offset: int, placed: Iterable[int]) -> None:  # noqa: ARG002  (the places say it)
        """See `ResumableSink`."""
        self._places.restore(placed, limit=self._disk.blocks)
        self._file.truncate(self._first + self._places.count * self._block_size)
        self._unmake()

    def placed(self) -> Sequence[int]:
        """See `ResumableSink`."""
        return self._places.fresh()

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        block, inside = divmod(offset, self._block_size)
        place, _ = self._places.find(block)
        self._file.write(self._first + place * self._block_size + inside, data)

    def finish(self) -> None:
        """Write BAT and metadata behind data that are durable, and the headers last: until then it is no VHDX."""
        self._file.truncate(self._first + self._places.count * self._block_size)
        self._file.flush()
        for first, page in self._places.pages():
            blocks = page[: self._disk.blocks - first]
            begin, step = self._first - self._block_size, self._block_size
            self._write_entries(first, [place and begin + place * step for place in blocks])
        self._write_metadata()
        self._file.flush()
        self._write_headers()
        self._file.flush()


class FixedVhdxSink(_VhdxSink):
    """A fixed VHDX: every block has its place, a block of zeros is a hole of the file."""

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        super().__init__(file, size, options, is_fixed=True)
        self._file_size = self._first + self._disk.blocks * self._block_size
        file.truncate(self._file_size)

    def restore(self, offset: int, placed: Iterable[int]) -> None:  # noqa: ARG002  (blocks have their places by nature)
        """See `ResumableSink`."""
        self._file.truncate(self._first + offset)
        self._file.truncate(self._file_size)
        self._unmake()

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        self._file.write(self._first + offset, data)

    def finish(self) -> None:
        """Write BAT and metadata behind data that are durable, and the headers last: until then it is no VHDX."""
        self._file.flush()
        blocks, step = self._disk.blocks, self._block_size
        for first in range(0, blocks, _FIXED_PAGE):
            last = min(first + _FIXED_PAGE, blocks)
            offsets = range(self._first + first * step, self._first + last * step, step)
            self._write_entries(first, offsets)
        self._write_metadata()
        self._file.flush()
        self._write_headers()
        self._file.flush()
