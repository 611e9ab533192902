"""Write a VMDK of the kind streamOptimized: compressed grains in order, as OVA packages and ESX take them.

Implements "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents". Layout, in this order: header and
descriptor (128 sectors), grains with their markers, a grain table behind the last grain that it names, the grain
directory, the footer (a header that says where the directory is), the end of the stream. Knows no thread and no source.
"""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from imaging.convert.options import Options
from imaging.deflate import zlib_compressor
from imaging.errors import DiskTooLarge
from imaging.formats.vmdk import build
from imaging.formats.vmdk.layout import (
    TABLE_ENTRIES,
    MarkerType,
    build_grain,
    build_header,
    build_marker,
)
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, MiB

_ZERO_GRAIN = bytes(build.GRAIN_SIZE)


class StreamOptimizedSink:
    """An OrderedSink; memory: 4 bytes for each 32 MiB of the disk.

    The same disk gives the same bytes, with the same options.
    """

    unit = 2 * MiB

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        """Begin the image of a disk of `size` bytes, a multiple of 512, in an empty file."""
        self._file = file
        self._size = size
        self._unique_id = options.unique_id
        self._compress = zlib_compressor(options.level)
        self._directory = array("I", bytes(4 * -(-size // build.TABLE_SPAN)))
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._table_number = 0
        self._sector = build.OVERHEAD_SECTORS

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
        """Write the grains of one unit and remember where they are.

        Raises:
            DiskTooLarge: The file would be longer than its tables can say.
        """
        for grains in encoded:
            number = offset // build.TABLE_SPAN
            if number != self._table_number:
                self._end_table()
                self._table_number = number
            place = self._sector
            self._write(grains)
            for sector, length in build.grains_of(grains):
                self._table[sector // build.GRAIN_SECTORS % TABLE_ENTRIES] = place
                place += length

    def finish(self) -> None:
        """Write what follows the grains and, behind what is durable, the header: until then it is no VMDK."""
        self._end_table()
        directory = self._write_marked(
            MarkerType.GRAIN_DIRECTORY, build.build_table(self._directory)
        )
        header = build.written_header(
            3,
            self._size,
            directory=directory,
            redundant=None,
            overhead=build.OVERHEAD_SECTORS,
        )
        self._write_marked(MarkerType.FOOTER, build_header(header))
        self._write(build_marker(MarkerType.END_OF_STREAM, 0))
        descriptor = build.build_descriptor(
            "streamOptimized", self._file.path.name, self._size // SECTOR_SIZE, self._unique_id
        )
        self._file.write(build.DESCRIPTOR_SECTOR * SECTOR_SIZE, descriptor)
        self._file.flush()
        self._file.write(0, build_header(replace(header, directory_offset=None)))
        self._file.flush()

    def _end_table(self) -> None:
        """Write the grain table that is being filled, unless no grain is in it."""
        if any(self._table):
            place = self._write_marked(MarkerType.GRAIN_TABLE, build.build_table(self._table))
            self._directory[self._table_number] = place
            self._table = array("I", bytes(4 * TABLE_ENTRIES))

    def _write_marked(self, kind: MarkerType, content: bytes) -> int:
        """Write a marker and what it announces; return the sector of the latter."""
        self._write(build_marker(kind, len(content) // SECTOR_SIZE))
        place = self._sector
        self._write(content)
        return place

    def _write(self, data: bytes | memoryview) -> None:
        end = self._sector + len(data) // SECTOR_SIZE
        if end > build.MAX_SECTORS:
            raise too_large(self._file.path)
        self._file.write(self._sector * SECTOR_SIZE, data)
        self._sector = end


def too_large(path: PurePath) -> DiskTooLarge:
    """Return the error of a VMDK that is full: 32 bits name its sectors."""
    return DiskTooLarge(
        f"{path}: the disk does not fit into a VMDK, whose file ends at 2 TiB", path=str(path)
    )
