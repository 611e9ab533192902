"""How a VMDK that we write is arranged: where its tables and grains lie, its descriptor; writes no file.

The bytes of header and markers are `layout`. All places and lengths are in sectors.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from imaging.formats.vmdk.layout import (
    MARKER_SIZE,
    TABLE_ENTRIES,
    TABLE_SIZE,
    SparseHeader,
    parse_marker,
)
from imaging.units import SECTOR_SIZE, KiB, round_up
from imaging.words import pack_words

GRAIN_SIZE = 64 * KiB
GRAIN_SECTORS = GRAIN_SIZE // SECTOR_SIZE
TABLE_SECTORS = TABLE_SIZE // SECTOR_SIZE
TABLE_SPAN = TABLE_ENTRIES * GRAIN_SIZE
"""Bytes of the disk that one grain table describes, 32 MiB."""

DESCRIPTOR_SECTOR = 1
DESCRIPTOR_SECTORS = 20
OVERHEAD_SECTORS = 128
"""Where VMware's own streams begin their grains; ESX wants the descriptor before it."""
MAX_SECTORS = 1 << 32
"""Grain tables name places in the file by 32 bits: a file ends at 2 TiB."""

NO_PARENT_CID = 0xFFFF_FFFF

_MAX_CYLINDERS = 65535
_UNSAFE_IN_NAME = frozenset('"\\/')


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


def written_header(
    version: int, size: int, *, directory: int, redundant: int | None, overhead: int
) -> SparseHeader:
    """Return the header of a disk of `size` bytes; without a redundant directory it is that of a compressed stream."""
    return SparseHeader(
        version=version,
        capacity=size,
        grain_size=GRAIN_SIZE,
        descriptor_offset=DESCRIPTOR_SECTOR * SECTOR_SIZE,
        descriptor_size=DESCRIPTOR_SECTORS * SECTOR_SIZE,
        redundant_offset=None if redundant is None else redundant * SECTOR_SIZE,
        directory_offset=directory * SECTOR_SIZE,
        overhead=overhead * SECTOR_SIZE,
        is_dirty=False,
        zero_grains=False,
        is_compressed=redundant is None,
    )


def grains_of(encoded: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Walk over what `build_grain` built: yield each grain's first sector on the disk, and its sectors in the file."""
    at = 0
    while at < len(encoded):
        grain = parse_marker(encoded, at)
        length = -(-(MARKER_SIZE + grain.size) // SECTOR_SIZE)
        yield grain.value, length
        at += length * SECTOR_SIZE


def build_table(entries: "array[int]") -> bytes:
    """Build grain tables or a directory, padded to whole sectors, from numbers of type "I"."""
    return pack_words(entries, "little") + bytes(-len(entries) * 4 % SECTOR_SIZE)


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
