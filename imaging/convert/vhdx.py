"""The sinks of VHDX, dynamic and fixed ([MS-VHDX]): no log to replay, no parent.

The file is: headers (0), an empty log (1 MiB), metadata (2 MiB), BAT (3 MiB), blocks, as Hyper-V lays it out.
"""

import uuid
from collections.abc import Iterable, Sequence

from imaging.convert.options import Options
from imaging.convert.places import Places
from imaging.formats.vhdx.bat import ENTRY_SIZE, build_entries, entry_count, entry_index
from imaging.formats.vhdx.layout import (
    HEADER_OFFSETS,
    NO_GUID,
    REGION_BAT,
    REGION_METADATA,
    REGION_TABLE_OFFSETS,
    DiskParameters,
    Header,
    Region,
    build_header,
    build_identifier,
    build_metadata,
    build_region_table,
)
from imaging.newfile import NewFile
from imaging.units import SECTOR_SIZE, MiB, round_up

_BLOCK_SIZE = 2 * MiB
"""Close to the data; Windows' own 32 MiB would make a sparse disk many times larger."""
_MAX_BLOCKS = 1 << 23
"""Beyond it (16 TiB) blocks are larger: readers hold the BAT in memory, 64 MiB are enough."""
_LOG = (1 * MiB, 1 * MiB)
_METADATA = (2 * MiB, 1 * MiB)
_BAT_OFFSET = 3 * MiB
_CREATOR = "imageport"
_FIXED_PAGE = 1 << 15
"""Blocks whose entries are built at a time."""


class _VhdxSink:
    """What both have in common: everything but where the blocks lie."""

    def __init__(self, file: NewFile, size: int, options: Options, *, is_fixed: bool) -> None:
        block_size = _BLOCK_SIZE
        while size > block_size * _MAX_BLOCKS:
            block_size *= 2
        self._disk = DiskParameters(block_size, is_fixed, False, size, options.sector_size)  # noqa: FBT003
        bat_length = round_up(entry_count(self._disk, self._disk.blocks) * ENTRY_SIZE, MiB)
        self._bat = (_BAT_OFFSET, bat_length)
        self._first = _BAT_OFFSET + bat_length
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
        at = _BAT_OFFSET + entry_index(first, self._disk) * ENTRY_SIZE
        self._file.write(at, build_entries(self._disk, first, offsets))

    def _write_metadata(self) -> None:
        regions = [Region(REGION_METADATA, *_METADATA, True), Region(REGION_BAT, *self._bat, True)]  # noqa: FBT003
        for offset in REGION_TABLE_OFFSETS:
            self._file.write(offset, build_region_table(regions))
        self._file.write(_METADATA[0], build_metadata(self._disk, disk_id=self._guid("disk")))

    def _write_headers(self) -> None:
        """Make a VHDX of it, at last."""
        for sequence, offset in enumerate(HEADER_OFFSETS, 1):
            header = Header(sequence, self._guid("data write"), NO_GUID, 0, _LOG[1], _LOG[0])
            block = build_header(header, file_write_guid=self._guid("file write"))
            self._file.write(offset, block)
        self._file.write(0, build_identifier(_CREATOR))

    def _guid(self, what: str) -> bytes:
        return uuid.uuid5(self._id, what).bytes_le


class DynamicVhdxSink(_VhdxSink):
    """A dynamic VHDX; a block of zeros is not in the file. Memory: see `Places`."""

    def __init__(self, file: NewFile, size: int, options: Options) -> None:
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

    def __init__(self, file: NewFile, size: int, options: Options) -> None:
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
