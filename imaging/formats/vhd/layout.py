"""The bytes of a VHD's metadata: footer and dynamic header, parsed and built; reads no file.

Implements "Virtual Hard Disk Image Format Specification" 1.0. All numbers are big-endian.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from imaging.errors import ChecksumMismatch, InvalidImage
from imaging.formats.signatures import (
    MAX_DYNAMIC_VHD,
    MAX_VIRTUAL_SIZE,
    VHD_COOKIE,
    VHD_DYNAMIC_COOKIE,
)
from imaging.units import SECTOR_SIZE

FOOTER_SIZE = 512
SHORT_FOOTER_SIZE = 511
"""Footers written before Virtual PC 2004 lack their last (reserved, zero) byte."""
DYNAMIC_HEADER_SIZE = 1024

NO_OFFSET = 0xFFFF_FFFF_FFFF_FFFF
"""Data Offset of a fixed disk and of the dynamic header: nothing follows. Azure checks it."""

UNIX_TIME_OF_EPOCH = 946_684_800
"""Seconds from 1970 to 2000-01-01T00:00:00Z, where VHD time stamps count from."""

ABSENT = 0xFFFF_FFFF
"""BAT entry of a block that is not in the file."""

FILE_FORMAT_VERSION = 0x0001_0000
FEATURE_RESERVED = 0x0000_0002  # "Features": this bit must always be set

CREATOR = b"win "
CREATOR_HOST = b"Wi2k"
CREATOR_VERSION = 0x000A_0000
"""Every qemu takes `Current Size` as the size of `win ` disks; with other creators some use CHS."""

CHS_CREATORS = (b"vpc ", b"qemu")
"""Creators whose disks qemu sizes by CHS: the one case in which peers disagree about the size."""

MAX_CHS_SECTORS = 65535 * 16 * 255
"""The largest geometry that can be written down; a larger disk has this one ("saturated")."""

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_CHECKSUM_AT = 64
_DYNAMIC_HEADER = struct.Struct(">8sQQIIII16sI4x512s192s256x")
_DYNAMIC_CHECKSUM_AT = 36


class DiskType(IntEnum):
    """Footer field "Disk Type"; 0, 1, 5 and 6 are reserved and refused."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


@dataclass(frozen=True, slots=True)
class Geometry:
    """Cylinders, heads and sectors per track, as an ATA disk would identify itself."""

    cylinders: int
    heads: int
    sectors_per_track: int

    @property
    def sectors(self) -> int:
        """Sectors that the geometry can address."""
        return self.cylinders * self.heads * self.sectors_per_track


@dataclass(frozen=True, slots=True)
class Footer:
    """A hard disk footer ("Hard Disk Footer Format").

    | offset | size | field |
    |---|---|---|
    | 0 | 8 | cookie `conectix` |
    | 8 | 4 | features |
    | 12 | 4 | file format version 1.0 |
    | 16 | 8 | data offset: of the dynamic header, 2^64-1 in fixed disks |
    | 24 | 4 | time stamp, seconds since 2000 |
    | 28 | 4 | creator application |
    | 32 | 4 | creator version |
    | 36 | 4 | creator host OS |
    | 40 | 8 | original size |
    | 48 | 8 | current size: the virtual size |
    | 56 | 4 | geometry: cylinders (2), heads (1), sectors per track (1) |
    | 60 | 4 | disk type |
    | 64 | 4 | checksum: ones' complement of the sum of all other bytes |
    | 68 | 16 | unique id |
    | 84 | 1 | saved state: 1 if a suspended machine owns the disk |
    | 85 | 427 | reserved, zero |
    """

    data_offset: int
    timestamp: int
    creator: bytes
    current_size: int
    geometry: Geometry
    disk_type: DiskType
    unique_id: bytes
    saved_state: bool


@dataclass(frozen=True, slots=True)
class DynamicHeader:
    """A dynamic disk header ("Dynamic Disk Header Format"); no parent unless differencing.

    | offset | size | field |
    |---|---|---|
    | 0 | 8 | cookie `cxsparse` |
    | 8 | 8 | data offset, unused |
    | 16 | 8 | table offset: of the BAT |
    | 24 | 4 | header version 1.0 |
    | 28 | 4 | max table entries |
    | 32 | 4 | block size, without the sector bitmap |
    | 36 | 4 | checksum, as in the footer |
    | 40 | 16 | parent unique id |
    | 56 | 4 | parent time stamp |
    | 64 | 512 | parent name, UTF-16BE |
    | 576 | 192 | eight parent locator entries |
    """

    table_offset: int
    max_entries: int
    block_size: int
    parent_id: bytes
    parent_name: bytes
    parent_locators: bytes


def checksum(block: bytes | bytearray, field_offset: int) -> int:
    """Return the ones' complement of the byte sum, the checksum field itself counted as zero."""
    return ~(sum(block) - sum(block[field_offset : field_offset + 4])) & 0xFFFF_FFFF


def geometry_of(virtual_size: int) -> Geometry:
    """Compute the geometry of a disk by the algorithm of the specification's appendix."""
    sectors = min(virtual_size // SECTOR_SIZE, MAX_CHS_SECTORS)
    if sectors >= 65535 * 16 * 63:
        return Geometry(sectors // 255 // 16, 16, 255)
    tracks = sectors // 17
    heads = max((tracks + 1023) // 1024, 4)
    if tracks < heads * 1024 and heads <= 16:
        return Geometry(tracks // heads, heads, 17)
    if sectors // 31 < 16 * 1024:
        return Geometry(sectors // 31 // 16, 16, 31)
    return Geometry(sectors // 63 // 16, 16, 63)


def build_fixed_footer(virtual_size: int, *, unique_id: bytes, timestamp: int) -> bytes:
    """Build the footer that follows the data of a fixed VHD.

    Args:
        virtual_size: Bytes of the disk, a positive multiple of 512; never rounded here.
        unique_id: 16 bytes that no other disk has.
        timestamp: Seconds since 2000-01-01 (`unix time - UNIX_TIME_OF_EPOCH`).

    Returns:
        512 bytes.
    """
    if not 0 < virtual_size <= MAX_VIRTUAL_SIZE or virtual_size % SECTOR_SIZE:
        raise ValueError(f"a fixed VHD cannot have {virtual_size} bytes")
    return _build_footer(DiskType.FIXED, NO_OFFSET, virtual_size, unique_id, timestamp)


def build_dynamic_footer(virtual_size: int, *, unique_id: bytes, timestamp: int) -> bytes:
    """Build the footer of a dynamic VHD, whose copy begins the file; the dynamic header follows that copy.

    Arguments and result are those of `build_fixed_footer`.
    """
    if not 0 < virtual_size <= MAX_DYNAMIC_VHD or virtual_size % SECTOR_SIZE:
        raise ValueError(f"a dynamic VHD cannot have {virtual_size} bytes")
    return _build_footer(DiskType.DYNAMIC, FOOTER_SIZE, virtual_size, unique_id, timestamp)


def build_dynamic_header(*, table_offset: int, max_entries: int, block_size: int) -> bytes:
    """Build the header of a dynamic disk without a parent.

    Args:
        table_offset: File offset of the BAT.
        max_entries: Entries of the BAT.
        block_size: Bytes of a block without its sector bitmap, a power of two.

    Returns:
        1024 bytes.
    """
    fields = (
        VHD_DYNAMIC_COOKIE,
        NO_OFFSET,
        table_offset,
        FILE_FORMAT_VERSION,
        max_entries,
        block_size,
    )
    header = bytearray(_DYNAMIC_HEADER.pack(*fields, 0, bytes(16), 0, b"", b""))
    struct.pack_into(">I", header, _DYNAMIC_CHECKSUM_AT, checksum(header, _DYNAMIC_CHECKSUM_AT))
    return bytes(header)


def resize_footer(block: bytes, virtual_size: int) -> bytes:
    """Return a footer as it is, with another size, the geometry of that size and its checksum.

    Original Size changes with Current Size: libvhdi takes it for the disk's size.
    """
    chs = geometry_of(virtual_size)
    footer = bytearray(block)
    struct.pack_into(
        *(">QQHBB", footer, 40, virtual_size, virtual_size),
        *(chs.cylinders, chs.heads, chs.sectors_per_track),
    )
    struct.pack_into(">I", footer, _CHECKSUM_AT, checksum(footer, _CHECKSUM_AT))
    return bytes(footer)


def move_table(block: bytes, *, table_offset: int, max_entries: int) -> bytes:
    """Return a dynamic header as it is, with another place and length of the BAT; only its first 512 bytes change."""
    header = bytearray(block)
    struct.pack_into(">Q", header, 16, table_offset)
    struct.pack_into(">I", header, 28, max_entries)
    struct.pack_into(">I", header, _DYNAMIC_CHECKSUM_AT, checksum(header, _DYNAMIC_CHECKSUM_AT))
    return bytes(header)


def _build_footer(
    disk_type: DiskType, data_offset: int, virtual_size: int, unique_id: bytes, timestamp: int
) -> bytes:
    if len(unique_id) != 16:
        raise ValueError(f"a unique id has 16 bytes, not {len(unique_id)}")
    chs = geometry_of(virtual_size)
    footer = bytearray(
        _FOOTER.pack(
            VHD_COOKIE,
            FEATURE_RESERVED,
            FILE_FORMAT_VERSION,
            data_offset,
            timestamp,
            CREATOR,
            CREATOR_VERSION,
            CREATOR_HOST,
            virtual_size,
            virtual_size,
            chs.cylinders,
            chs.heads,
            chs.sectors_per_track,
            disk_type,
            0,
            unique_id,
            0,
        )
    )
    struct.pack_into(">I", footer, _CHECKSUM_AT, checksum(footer, _CHECKSUM_AT))
    return bytes(footer)


def is_footer(block: bytes) -> bool:
    """Tell whether `block` is a footer whose checksum is right (its values may still be absurd)."""
    block = block.ljust(FOOTER_SIZE, b"\0")
    if block[:8] != VHD_COOKIE:
        return False
    return _stored_checksum(block, _CHECKSUM_AT) == checksum(block, _CHECKSUM_AT)


def parse_footer(block: bytes, file_offset: int) -> Footer:
    """Parse and check a footer of 512 (or 511) bytes.

    Args:
        block: The bytes.
        file_offset: Where they lie in the file, for messages.

    Raises:
        InvalidImage: Cookie, checksum, version, type or size break the rules.
    """
    block = block.ljust(FOOTER_SIZE, b"\0")
    _require_cookie(block, VHD_COOKIE, "VHD footer", file_offset)
    _require_checksum(block, _CHECKSUM_AT, "VHD footer", file_offset)
    (
        _,
        _,
        version,
        data_offset,
        timestamp,
        creator,
        _,
        _,
        _,
        current_size,
        *chs,
        disk_type,
        _,
        uid,
        saved,
    ) = _FOOTER.unpack(block)
    _require_version(version, "VHD footer", file_offset + 12)
    if disk_type not in tuple(DiskType):
        raise InvalidImage(
            f"VHD footer at file offset {file_offset}: disk type {disk_type}, expected 2, 3 or 4",
            offset=file_offset + 60,
        )
    if not 0 < current_size <= MAX_VIRTUAL_SIZE or current_size % SECTOR_SIZE:
        raise InvalidImage(
            f"VHD footer at file offset {file_offset}: current size {current_size}, expected a"
            f" positive multiple of {SECTOR_SIZE} up to {MAX_VIRTUAL_SIZE}",
            offset=file_offset + 48,
        )
    return Footer(
        data_offset=data_offset,
        timestamp=timestamp,
        creator=creator,
        current_size=current_size,
        geometry=Geometry(*chs),
        disk_type=DiskType(disk_type),
        unique_id=uid,
        saved_state=saved != 0,
    )


def parse_dynamic_header(block: bytes, file_offset: int) -> DynamicHeader:
    """Parse and check a dynamic disk header of 1024 bytes at `file_offset`.

    The BAT's place and length are checked by the reader, who knows the file's and the disk's size.

    Raises:
        InvalidImage: Cookie, checksum, version or block size break the rules.
    """
    what = "VHD dynamic header"
    _require_cookie(block, VHD_DYNAMIC_COOKIE, what, file_offset)
    _require_checksum(block, _DYNAMIC_CHECKSUM_AT, what, file_offset)
    (_, _, table_offset, version, max_entries, block_size, _, parent_id, _, name, locators) = (
        _DYNAMIC_HEADER.unpack(block)
    )
    _require_version(version, what, file_offset + 24)
    if block_size < SECTOR_SIZE or block_size & (block_size - 1):
        raise InvalidImage(
            f"{what} at file offset {file_offset}: block size {block_size}, expected a power of two"
            f" of at least {SECTOR_SIZE}",
            offset=file_offset + 32,
        )
    return DynamicHeader(
        table_offset=table_offset,
        max_entries=max_entries,
        block_size=block_size,
        parent_id=parent_id,
        parent_name=name,
        parent_locators=locators,
    )


def _require_cookie(block: bytes, cookie: bytes, what: str, file_offset: int) -> None:
    if block[:8] != cookie:
        raise InvalidImage(
            f"no {what} at file offset {file_offset}: expected {cookie!r}, found {block[:8]!r}",
            offset=file_offset,
        )


def _stored_checksum(block: bytes, field_offset: int) -> int:
    return int.from_bytes(block[field_offset : field_offset + 4], "big")


def _require_checksum(block: bytes, field_offset: int, what: str, file_offset: int) -> None:
    stored, computed = _stored_checksum(block, field_offset), checksum(block, field_offset)
    if stored != computed:
        raise ChecksumMismatch(
            f"{what} at file offset {file_offset}: checksum {stored:#010x},"
            f" expected {computed:#010x}",
            offset=file_offset + field_offset,
        )


def _require_version(version: int, what: str, file_offset: int) -> None:
    # Only the major number may not differ: minor versions stay compatible by the specification.
    if version >> 16 != FILE_FORMAT_VERSION >> 16:
        raise InvalidImage(
            f"{what}: version {version >> 16}.{version & 0xFFFF} at file offset {file_offset},"
            " expected 1.0",
            offset=file_offset,
        )
