"""The bytes of a sparse VMDK extent: header (and footer), markers of compressed ones; reads no file.

Implements "Virtual Disk Format 5.0" ("Hosted Sparse Extents", "Stream-Optimized Compressed Sparse Extents"). All
numbers are little-endian; the header counts in sectors of 512 bytes, our values are bytes.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.signatures import MAX_VIRTUAL_SIZE, VMDK_MAGIC
from imaging.units import SECTOR_SIZE

HEADER_SIZE = 512
COWD_MAGIC = b"COWD"
"""vmfsSparse extents: snapshots of ESXi up to VMFS 5."""
SESPARSE_MAGIC = b"\xbe\xba\xfe\xca\x00\x00\x00\x00"
"""seSparse extents: snapshots of ESXi from VMFS 6 on."""

VERSIONS = (1, 2, 3)
"""2 and 3 (zeroed grains, changed block tracking, newer streams) have the layout of 1."""

MIN_GRAIN_SECTORS, MAX_GRAIN_SECTORS = 16, 65536
"""A power of two greater than 8 by the specification; 32 MiB is our upper end, writers take 64 KiB."""
TABLE_ENTRIES = 512
TABLE_SIZE = TABLE_ENTRIES * 4
"""Entries and bytes of a grain table: the specification has only this one."""
MAX_DESCRIPTOR_SIZE = 1 << 20
"""Bytes: the names of 10 000 extents."""

FLAG_NEWLINES, FLAG_REDUNDANT, FLAG_ZERO_GRAINS = 1 << 0, 1 << 1, 1 << 2
FLAG_COMPRESSED, FLAG_MARKERS = 1 << 16, 1 << 17
_NEWLINES = b"\n \r\n"
_NO_COMPRESSION, _DEFLATE = 0, 1

IN_FOOTER = 0xFFFF_FFFF_FFFF_FFFF
"""gdOffset of a header that was written before the grains: the footer, a second header, knows it."""
FOOTER_AREA_SIZE = 3 * SECTOR_SIZE
"""Footer marker, footer and end-of-stream marker, the last three sectors of the file."""

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
_MARKER = struct.Struct("<QI")
_MARKER_TYPE = struct.Struct("<I")
MARKER_SIZE = _MARKER.size
"""Bytes before the data of a grain; other markers fill a sector."""


class MarkerType(IntEnum):
    """What follows a marker whose size is 0."""

    END_OF_STREAM = 0
    GRAIN_TABLE = 1
    GRAIN_DIRECTORY = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class SparseHeader:
    """The header of a sparse extent (SparseExtentHeader), sizes and offsets in bytes.

    | offset | size | field |
    |---|---|---|
    | 0 | 4 | magic `KDMV` |
    | 4 | 4 | version |
    | 8 | 4 | flags: 0 newline test, 1 redundant directory, 2 zeroed grains, 16 compressed, 17 markers |
    | 12 | 8 | capacity |
    | 20 | 8 | grain size |
    | 28 | 8 | descriptor offset, 0 if the descriptor is a file of its own |
    | 36 | 8 | descriptor size |
    | 44 | 4 | entries of a grain table, 512 |
    | 48 | 8 | offset of the redundant grain directory |
    | 56 | 8 | offset of the grain directory, 2^64-1 if the footer knows it |
    | 64 | 8 | overhead: everything before the grains |
    | 72 | 1 | unclean shutdown |
    | 73 | 4 | newline test: 0A 20 0D 0A |
    | 77 | 2 | compression: 0 none, 1 deflate |
    | 79 | 433 | zero |

    Attributes:
        directory_offset: None if the footer knows it.
        redundant_offset: None without a redundant directory.
        zero_grains: Whether table entry 1 is a grain of zeros.
    """

    version: int
    capacity: int
    grain_size: int
    descriptor_offset: int
    descriptor_size: int
    redundant_offset: int | None
    directory_offset: int | None
    overhead: int
    is_dirty: bool
    zero_grains: bool
    is_compressed: bool

    @property
    def grains(self) -> int:
        """Grains of the extent, the last perhaps cut."""
        return -(-self.capacity // self.grain_size)

    @property
    def tables(self) -> int:
        """Grain tables of the extent, and so entries of its directory."""
        return -(-self.grains // TABLE_ENTRIES)


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands before each grain, table, directory and footer of a stream.

    Attributes:
        value: First sector of the grain; sectors of the metadata that follow.
        size: Bytes of the grain's compressed data; 0 before metadata.
        type: Number of a MarkerType; meaningless before a grain.
    """

    value: int
    size: int
    type: int


def parse_header(block: bytes, file_offset: int) -> SparseHeader:
    """Parse and check a header (or footer) of 512 bytes at `file_offset`.

    Where the tables lie is checked by the reader, who knows the file's size.

    Raises:
        InvalidImage: A value breaks the rules.
        UnsupportedImage: A version, or a compression, that we do not read.
    """
    if block[:4] != VMDK_MAGIC or len(block) < HEADER_SIZE:
        raise InvalidImage(
            f"no VMDK header at file offset {file_offset}: expected {VMDK_MAGIC!r}, found {block[:4]!r}",
            offset=file_offset,
        )
    (
        _,
        version,
        flags,
        capacity,
        grain,
        descriptor_offset,
        descriptor_size,
        entries,
        redundant,
        directory,
        overhead,
        dirty,
        newlines,
        compression,
    ) = _HEADER.unpack(block[:HEADER_SIZE])
    _require_version(version, file_offset)
    _require_geometry(capacity, grain, entries, file_offset)
    if flags & FLAG_NEWLINES and newlines != _NEWLINES:
        raise InvalidImage(
            f"the newline test at file offset {file_offset + 73} is {newlines.hex()}, expected"
            f" {_NEWLINES.hex()}: the file went through a transfer as text",
            offset=file_offset + 73,
        )
    _require_compression(flags, compression, file_offset)
    _require_descriptor(descriptor_offset, descriptor_size, file_offset)
    return SparseHeader(
        version=version,
        capacity=capacity * SECTOR_SIZE,
        grain_size=grain * SECTOR_SIZE,
        descriptor_offset=descriptor_offset * SECTOR_SIZE,
        descriptor_size=descriptor_size * SECTOR_SIZE,
        redundant_offset=redundant * SECTOR_SIZE if flags & FLAG_REDUNDANT else None,
        directory_offset=None if directory == IN_FOOTER else directory * SECTOR_SIZE,
        overhead=overhead * SECTOR_SIZE,
        is_dirty=dirty != 0,
        zero_grains=bool(flags & FLAG_ZERO_GRAINS),
        is_compressed=bool(flags & FLAG_COMPRESSED),
    )


def build_header(header: SparseHeader) -> bytes:
    """Build the 512 bytes of a header (or footer) with the newline test; a compressed one has markers."""
    redundant, directory = header.redundant_offset, header.directory_offset
    flags = FLAG_NEWLINES
    flags |= FLAG_REDUNDANT if redundant is not None else 0
    flags |= FLAG_ZERO_GRAINS if header.zero_grains else 0
    flags |= FLAG_COMPRESSED | FLAG_MARKERS if header.is_compressed else 0
    return _HEADER.pack(
        VMDK_MAGIC,
        header.version,
        flags,
        header.capacity // SECTOR_SIZE,
        header.grain_size // SECTOR_SIZE,
        header.descriptor_offset // SECTOR_SIZE,
        header.descriptor_size // SECTOR_SIZE,
        TABLE_ENTRIES,
        (redundant or 0) // SECTOR_SIZE,
        IN_FOOTER if directory is None else directory // SECTOR_SIZE,
        header.overhead // SECTOR_SIZE,
        header.is_dirty,
        _NEWLINES,
        _DEFLATE if header.is_compressed else _NO_COMPRESSION,
    )


def build_marker(kind: MarkerType, sectors: int) -> bytes:
    """Build the sector that announces `sectors` of metadata: value (8), size 0 (4), type (4)."""
    return (_MARKER.pack(sectors, 0) + _MARKER_TYPE.pack(kind)).ljust(SECTOR_SIZE, b"\0")


def build_grain(sector: int, deflated: bytes | bytearray) -> bytes:
    """Build a compressed grain: first sector on the disk (8), size (4), zlib stream; padded to whole sectors."""
    head = _MARKER.pack(sector, len(deflated))
    return b"".join((head, deflated, bytes(-(len(head) + len(deflated)) % SECTOR_SIZE)))


def parse_marker(block: bytes | memoryview, at: int = 0) -> Marker:
    """Parse the marker at index `at`; the block must hold 16 bytes from there on."""
    value, size = _MARKER.unpack_from(block, at)
    (kind,) = _MARKER_TYPE.unpack_from(block, at + MARKER_SIZE)
    return Marker(value, size, kind)


def _require_version(version: int, file_offset: int) -> None:
    if version not in VERSIONS:
        raise UnsupportedImage(
            f"version {version} of the VMDK header at file offset {file_offset}, expected 1, 2 or 3",
            offset=file_offset + 4,
            found=version,
        )


def _require_geometry(capacity: int, grain: int, entries: int, file_offset: int) -> None:
    if not 0 < capacity * SECTOR_SIZE <= MAX_VIRTUAL_SIZE:
        raise InvalidImage(
            f"the capacity is {capacity} sectors, expected 1 to {MAX_VIRTUAL_SIZE // SECTOR_SIZE}",
            offset=file_offset + 12,
            found=capacity,
        )
    if not MIN_GRAIN_SECTORS <= grain <= MAX_GRAIN_SECTORS or grain & (grain - 1):
        raise InvalidImage(
            f"the grain size is {grain} sectors, expected a power of two from {MIN_GRAIN_SECTORS}"
            f" to {MAX_GRAIN_SECTORS}",
            offset=file_offset + 20,
            found=grain,
        )
    if entries != TABLE_ENTRIES:
        raise InvalidImage(
            f"a grain table has {entries} entries, expected {TABLE_ENTRIES}",
            offset=file_offset + 44,
            found=entries,
        )


def _require_compression(flags: int, compression: int, file_offset: int) -> None:
    compressed, markers = bool(flags & FLAG_COMPRESSED), bool(flags & FLAG_MARKERS)
    if compressed != markers:
        raise UnsupportedImage(
            f"the flags are {flags:#x}: compression and markers go together in every known stream",
            offset=file_offset + 8,
            found=flags,
        )
    if compression != (_DEFLATE if compressed else _NO_COMPRESSION):
        raise UnsupportedImage(
            f"compression {compression} with the flags {flags:#x}, expected 0 (none) or, in"
            " compressed extents, 1 (deflate)",
            offset=file_offset + 77,
            found=compression,
        )


def _require_descriptor(offset: int, size: int, file_offset: int) -> None:
    if offset and not 0 < size * SECTOR_SIZE <= MAX_DESCRIPTOR_SIZE:
        raise InvalidImage(
            f"the descriptor has {size} sectors, expected 1 to {MAX_DESCRIPTOR_SIZE // SECTOR_SIZE}",
            offset=file_offset + 36,
            found=size,
        )
