"""Write a VMDK of the kind streamOptimized: compressed grains in order, as OVA packages and ESX take them.

Implements "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents". Layout, in this order: header and
descriptor (128 sectors), grains with their markers, a grain table behind the last grain that it names, the grain
directory, the footer (a header that says where the directory is), the end of the stream. Knows no thread and no source.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from uuid import UUID

from imaging.convert.archive import Appendable
from imaging.convert.options import Options
from imaging.deflate import zlib_compressor
from imaging.errors import DiskTooLarge
from imaging.formats.vmdk import build
from imaging.formats.vmdk.layout import (
    TABLE_ENTRIES,
    MarkerType,
    SparseHeader,
    build_grain,
    build_header,
    build_marker,
)
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, MiB

_ZERO_GRAIN = bytes(build.GRAIN_SIZE)


class GrainWriter:
    """Everything behind header and descriptor, always at the end; memory: 4 bytes for each 32 MiB of the disk."""

    unit = 2 * MiB

    def __init__(self, file: Appendable, size: int, level: str) -> None:
        self._file = file
        self._size = size
        self._compress = zlib_compressor(level)
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._table_number = 0
        self.directory = array("I", bytes(4 * -(-size // build.TABLE_SPAN)))
        """Where the grain tables are, in sectors; 0: there is none yet."""
        self.sector = build.OVERHEAD_SECTORS
        """Where the next byte goes."""

    def encode(self, offset: int, data: memoryview | None) -> Sequence[bytes | memoryview]:
        """Compress the grains that are not zeros, each behind its marker."""
        if data is None:
            return ()
        grains = []
        for at in range(0, len(data), build.GRAIN_SIZE):
            # The disk's last grain is whole, too: readers inflate into a buffer of a grain.
            grain = bytes(data[at : at + build.GRAIN_SIZE]).ljust(build.GRAIN_SIZE, b"\0")
            if grain != _ZERO_GRAIN:
                sector = (offset + at) // SECTOR_SIZE
                grains.append(build_grain(sector, self._compress(grain)))
        return (b"".join(grains),)

    def append(self, offset: int, encoded: Sequence[bytes | memoryview]) -> None:
        """Write the grains of one unit, and their table behind the last unit that it names.

        Raises:
            DiskTooLarge: The file would be longer than its tables can say.
        """
        self._table_number = offset // build.TABLE_SPAN
        for grains in encoded:
            place = self.sector
            self.write(grains)
            for sector, length in build.grains_of(grains):
                self._table[sector // build.GRAIN_SECTORS % TABLE_ENTRIES] = place
                place += length
        if (offset + self.unit) % build.TABLE_SPAN == 0:
            self._end_table()

    def finish(self) -> SparseHeader:
        """Write what follows the grains; return the header that knows the directory."""
        self._end_table()
        directory = self._write_marked(
            MarkerType.GRAIN_DIRECTORY, build.build_table(self.directory)
        )
        header = header_of(self._size, directory)
        self._write_marked(MarkerType.FOOTER, build_header(header))
        self.write(build_marker(MarkerType.END_OF_STREAM, 0))
        return header

    def open_table(self) -> dict[int, int]:
        """Return the entries of the table that is being filled, by the grain's number on the disk."""
        first = self._table_number * TABLE_ENTRIES
        return {first + index: place for index, place in enumerate(self._table) if place}

    def restore(self, states: "Sequence[FlowState]") -> None:
        """Go on behind the last of all states."""
        for state in states:
            for number, place in state.ended.items():
                self.directory[number] = place
        self.sector = states[-1].sector
        for grain, place in states[-1].open_table.items():
            self._table_number, index = divmod(grain, TABLE_ENTRIES)
            self._table[index] = place

    def write(self, data: bytes | memoryview) -> None:
        """Write whole sectors at the end."""
        end = self.sector + len(data) // SECTOR_SIZE
        if end > build.MAX_SECTORS:
            raise too_large(self._file.path)
        self._file.write(self.sector * SECTOR_SIZE, data)
        self.sector = end

    def _end_table(self) -> None:
        """Write the grain table that is being filled, unless no grain is in it."""
        if any(self._table):
            self.directory[self._table_number] = self._write_marked(
                MarkerType.GRAIN_TABLE, build.build_table(self._table)
            )
            self._table = array("I", bytes(4 * TABLE_ENTRIES))

    def _write_marked(self, kind: MarkerType, content: bytes) -> int:
        """Write a marker and what it announces; return the sector of the latter."""
        self.write(build_marker(kind, len(content) // SECTOR_SIZE))
        place = self.sector
        self.write(content)
        return place


class StreamOptimizedSink:
    """An OrderedSink. The same disk gives the same bytes, with the same options."""

    unit = GrainWriter.unit

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        """Begin the image of a disk of `size` bytes, a multiple of 512, in an empty file."""
        self._file = file
        self._size = size
        self._unique_id = options.unique_id
        self._grains = GrainWriter(file, size, options.level)
        self.encode = self._grains.encode
        self.append = self._grains.append

    def finish(self) -> None:
        """Write what follows the grains and, behind what is durable, the header: until then it is no VMDK."""
        header = self._grains.finish()
        descriptor = descriptor_of(self._file.path.name, self._size, self._unique_id)
        self._file.write(build.DESCRIPTOR_SECTOR * SECTOR_SIZE, descriptor)
        self._file.flush()
        self._file.write(0, build_header(replace(header, directory_offset=None)))
        self._file.flush()


class FlowingVmdkSink:
    """The same bytes from their beginning to their end, for a service that takes parts; it can be gone on with."""

    unit = GrainWriter.unit

    def __init__(
        self,
        file: Appendable,
        size: int,
        options: Options,
        *,
        states: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """Begin the image of a disk of `size` bytes, a multiple of 512; or go on behind the last of all `states`."""
        self._grains = GrainWriter(file, size, options.level)
        self._told = bytearray(len(self._grains.directory))
        self._file = file
        self.encode = self._grains.encode
        self.append = self._grains.append
        if states:
            self._grains.restore([FlowState.read(state) for state in states])
            self._told = bytearray(map(bool, self._grains.directory))
        else:
            file.write(0, beginning(size, file.path.name, options.unique_id))

    def take_state(self) -> tuple[int, ...]:
        """Return the state since the last call (`FlowState`)."""
        ended = {}
        for number, place in enumerate(self._grains.directory):
            if place and not self._told[number]:
                self._told[number] = True
                ended[number] = place
        return FlowState(self._grains.sector, self._grains.open_table(), ended).plain()

    def finish(self) -> None:
        """Write what follows the grains."""
        self._grains.finish()
        self._file.flush()


@dataclass(frozen=True, slots=True)
class FlowState:
    """How far a stream is behind a unit, seen from the state before.

    Attributes:
        sector: Where the next byte goes.
        open_table: Entries of the table that is not ended: number of the grain -> sector.
        ended: Tables ended since: number -> sector.
    """

    sector: int
    open_table: dict[int, int]
    ended: dict[int, int]

    def plain(self) -> tuple[int, ...]:
        """Return it as numbers."""
        pairs = (*self.open_table.items(), *self.ended.items())
        return (self.sector, len(self.open_table), *(one for pair in pairs for one in pair))

    @classmethod
    def read(cls, plain: Sequence[int]) -> "FlowState":
        """Read what `plain` returned."""
        sector, count, *rest = plain
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        return cls(sector, dict(pairs[:count]), dict(pairs[count:]))


def header_of(size: int, directory: int) -> SparseHeader:
    """Return the header of a stream whose directory is at that sector."""
    return build.written_header(
        3, size, directory=directory, redundant=None, overhead=build.OVERHEAD_SECTORS
    )


def descriptor_of(name: str, size: int, unique_id: UUID) -> bytes:
    """Return the descriptor of a stream."""
    return build.build_descriptor("streamOptimized", name, size // SECTOR_SIZE, unique_id)


def beginning(size: int, name: str, unique_id: UUID) -> bytes:
    """Return everything before the grains: a header that leaves the directory to the footer, and the descriptor."""
    header = build_header(replace(header_of(size, 0), directory_offset=None))
    descriptor = descriptor_of(name, size, unique_id)
    whole = header.ljust(build.DESCRIPTOR_SECTOR * SECTOR_SIZE, b"\0") + descriptor
    return whole.ljust(build.OVERHEAD_SECTORS * SECTOR_SIZE, b"\0")


def too_large(path: PurePath) -> DiskTooLarge:
    """Return the error of a VMDK that is full: 32 bits name its sectors."""
    return DiskTooLarge(
        f"{path}: the disk does not fit into a VMDK, whose file ends at 2 TiB", path=str(path)
    )
