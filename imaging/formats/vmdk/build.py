"""The bytes of a VMDK that we write: header, markers, grain tables, descriptor; writes no file.

Implements "Virtual Disk Format 5.0". All numbers are little-endian, and all places and lengths are in sectors.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self
from uuid import UUID

from imaging.formats.signatures import VMDK_MAGIC
from imaging.units import SECTOR_SIZE, KiB, round_up

GRAIN_SIZE = 64 * KiB
GRAIN_SECTORS = GRAIN_SIZE // SECTOR_SIZE
TABLE_ENTRIES = 512
"""Grains of a grain table: VMware's tools take no other number."""
TABLE_SECTORS = TABLE_ENTRIES * 4 // SECTOR_SIZE
TABLE_SPAN = TABLE_ENTRIES * GRAIN_SIZE
"""Bytes of the disk that one grain table describes, 32 MiB."""

DESCRIPTOR_SECTOR = 1
DESCRIPTOR_SECTORS = 20
OVERHEAD_SECTORS = 128
"""Where VMware's own streams begin their grains; ESX wants the descriptor before it."""
MAX_SECTORS = 1 << 32
"""Grain tables name places in the file by 32 bits: a file ends at 2 TiB."""

VALID_NEWLINES = 1 << 0
REDUNDANT_TABLES = 1 << 1
COMPRESSED = 1 << 16
MARKERS = 1 << 17

DIRECTORY_IN_FOOTER = 0xFFFF_FFFF_FFFF_FFFF
NO_PARENT_CID = 0xFFFF_FFFF

_NEWLINES = b"\n \r\n"
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
_MARKER = struct.Struct("<QII496x")
_GRAIN_MARKER = struct.Struct("<QI")
_DEFLATE = 1

_MAX_CYLINDERS = 65535
_UNSAFE_IN_NAME = frozenset('"\\/')


class Marker(IntEnum):
    """What follows a marker that is none of a grain (its size field is 0)."""

    END_OF_STREAM = 0
    GRAIN_TABLE = 1
    GRAIN_DIRECTORY = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The sparse extent header of 512 bytes; a stream has it as its footer too.

    | offset | size | field |
    |---|---|---|
    | 0 | 4 | magic `KDMV` |
    | 4 | 4 | version: 1, streams 3 |
    | 8 | 4 | flags |
    | 12 | 8 | capacity |
    | 20 | 8 | grain size |
    | 28 | 8 | descriptor offset |
    | 36 | 8 | descriptor size |
    | 44 | 4 | entries of a grain table |
    | 48 | 8 | redundant grain directory |
    | 56 | 8 | grain directory; 2^64-1: see the footer |
    | 64 | 8 | overhead: sectors of metadata before the grains |
    | 72 | 1 | unclean shutdown |
    | 73 | 4 | newline test 0A 20 0D 0A |
    | 77 | 2 | compression: 1 is deflate |
    """

    version: int
    flags: int
    capacity: int
    redundant_directory: int
    directory: int
    overhead: int

    def pack(self) -> bytes:
        """Return its 512 bytes."""
        return _HEADER.pack(
            *(VMDK_MAGIC, self.version, self.flags, self.capacity, GRAIN_SECTORS),
            *(DESCRIPTOR_SECTOR, DESCRIPTOR_SECTORS, TABLE_ENTRIES),
            *(self.redundant_directory, self.directory, self.overhead),
            *(0, _NEWLINES, _DEFLATE if self.flags & COMPRESSED else 0),
        )


@dataclass(frozen=True, slots=True)
class Tables:
    """Where a growing image has its directories and tables: all of them before the first grain, and twice.

    Attributes:
        count: Grain tables of the disk.
        directory_sectors: Of one directory.
    """

    count: int
    directory_sectors: int

    @classmethod
    def of(cls, size: int) -> Self:
        """Count the tables of a disk of `size` bytes."""
        count = -(-size // TABLE_SPAN)
        return cls(count, -(-count * 4 // SECTOR_SIZE))

    @property
    def directories(self) -> tuple[int, int]:
        """Sectors of the redundant directory and of the directory; each has its tables behind it."""
        first = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS
        return first, first + self.directory_sectors + self.count * TABLE_SECTORS

    @property
    def overhead(self) -> int:
        """First sector of the grains, whose places are multiples of a grain."""
        first, second = self.directories
        return round_up(2 * second - first, GRAIN_SECTORS)

    def places(self, directory: int) -> "array[int]":
        """Return the sectors of the tables behind a directory: its entries."""
        first = directory + self.directory_sectors
        return array("I", range(first, first + self.count * TABLE_SECTORS, TABLE_SECTORS))


def build_marker(kind: Marker, sectors: int) -> bytes:
    """Build the sector that announces `sectors` of metadata: value (8), size 0 (4), type (4)."""
    return _MARKER.pack(sectors, 0, kind)


def build_grain(sector: int, deflated: bytes | bytearray) -> bytes:
    """Build a compressed grain: first sector on the disk (8), size (4), zlib stream; padded to whole sectors."""
    head = _GRAIN_MARKER.pack(sector, len(deflated))
    return b"".join((head, deflated, bytes(-(len(head) + len(deflated)) % SECTOR_SIZE)))


def grains_of(encoded: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Walk over what `build_grain` built: yield each grain's first sector on the disk, and its sectors in the file."""
    at = 0
    while at < len(encoded):
        sector, size = _GRAIN_MARKER.unpack_from(encoded, at)
        length = -(-(_GRAIN_MARKER.size + size) // SECTOR_SIZE)
        yield sector, length
        at += length * SECTOR_SIZE


def build_table(entries: "array[int] | memoryview[int]") -> bytes:
    """Build grain tables or a directory, padded to whole sectors, from numbers of type "I"."""
    if sys.byteorder == "big":
        entries = array("I", entries)
        entries.byteswap()
    return entries.tobytes() + bytes(-len(entries) * 4 % SECTOR_SIZE)


def build_descriptor(create_type: str, name: str, capacity: int, unique_id: UUID) -> bytes:
    """Build the descriptor, padded with NUL to DESCRIPTOR_SECTORS.

    Args:
        create_type: "streamOptimized" or "monolithicSparse".
        name: The file's own name. It is for people: readers know the file that they opened.
        capacity: Sectors of the disk.
        unique_id: Like no other disk's.
    """
    if not name.isprintable() or _UNSAFE_IN_NAME & set(name):
        name = "disk.vmdk"
    cylinders, heads, sectors = _geometry(capacity)
    text = f"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={cid_of(unique_id):08x}
parentCID={NO_PARENT_CID:08x}
createType="{create_type}"

# Extent description
RW {capacity} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{sectors}"
ddb.adapterType = "lsilogic"
ddb.toolsVersion = "2147483647"
"""
    # The tools version says "some open-vm-tools", so that vSphere does not offer to install its own.
    return text.encode().ljust(DESCRIPTOR_SECTORS * SECTOR_SIZE, b"\0")


def cid_of(unique_id: UUID) -> int:
    """Return a content ID: its highest value means "no parent", the one below is taken for a disk of zeros."""
    return unique_id.int % (NO_PARENT_CID - 1)


def _geometry(capacity: int) -> tuple[int, int, int]:
    """Return cylinders, heads, sectors as VMware's BIOS of a SCSI disk counts them: 255 x 63 above 1 GiB."""
    heads, sectors = (255, 63) if capacity > 2 * KiB * KiB else (64, 32)
    return min(-(-capacity // (heads * sectors)), _MAX_CYLINDERS), heads, sectors
