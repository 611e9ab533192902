"""The bytes of a VHDX's metadata: headers, region table, metadata items; parsed, checked and built.

Implements [MS-VHDX] 2.2 and 2.6; all numbers are little-endian. Reads no file: places and lengths
that only the file's size can judge are checked by the reader.
"""

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imaging.crc32c import crc32c
from imaging.errors import ChecksumMismatch, InvalidImage, UnsupportedImage
from imaging.formats.signatures import MAX_VIRTUAL_SIZE, VHDX_SIGNATURE
from imaging.units import KiB, MiB

HEADER_OFFSETS = (64 * KiB, 128 * KiB)
HEADER_SIZE = 4 * KiB
REGION_TABLE_OFFSETS = (192 * KiB, 256 * KiB)
TABLE_SIZE = 64 * KiB
"""Bytes of a region table (2.2.3) and of the metadata table (2.6.1)."""
HEADER_AREA_SIZE = 1 * MiB
"""File type identifier, headers and region tables; everything else lies behind it."""

_OF_DISK, _REQUIRED = 2, 4
"""Flags of a metadata item (2.6.1.2): it describes the disk, not the file; who does not know it must refuse."""
MAX_ENTRIES = 2047
SECTOR_SIZES = (512, 4096)
MIN_BLOCK_SIZE = 1 * MiB
MAX_BLOCK_SIZE = 256 * MiB

NO_GUID = bytes(16)


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


REGION_BAT = _guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
REGION_METADATA = _guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
ITEM_FILE_PARAMETERS = _guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
ITEM_VIRTUAL_SIZE = _guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
ITEM_DISK_ID = _guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
ITEM_LOGICAL_SECTOR = _guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
ITEM_PHYSICAL_SECTOR = _guid("CDA348C7-445D-4471-9CC9-E9885251C556")
ITEM_PARENT_LOCATOR = _guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
KNOWN_ITEMS = (
    ITEM_FILE_PARAMETERS,
    ITEM_VIRTUAL_SIZE,
    ITEM_DISK_ID,
    ITEM_LOGICAL_SECTOR,
    ITEM_PHYSICAL_SECTOR,
    ITEM_PARENT_LOCATOR,
)

_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_REGION_HEAD = struct.Struct("<4sIII")
_REGION_ENTRY = struct.Struct("<16sQII")
_METADATA_HEAD = struct.Struct("<8sHH20s")
_METADATA_ENTRY = struct.Struct("<16sIIII")


@dataclass(frozen=True, slots=True)
class Header:
    """The current state of the file (2.2.2).

    | offset | size | field |
    |---|---|---|
    | 0 | 4 | signature `head` |
    | 4 | 4 | checksum: CRC-32C of the 4096 bytes with this field zero |
    | 8 | 8 | sequence number: the higher of the two headers is current |
    | 16 | 16 | file write GUID |
    | 32 | 16 | data write GUID: what a child's parent locator names |
    | 48 | 16 | log GUID: zero if there is nothing to replay |
    | 64 | 2 | log version, 0 |
    | 66 | 2 | version, 1 |
    | 68 | 4 | log length |
    | 72 | 8 | log offset |
    """

    sequence: int
    data_write_guid: bytes
    log_guid: bytes
    log_version: int
    log_length: int
    log_offset: int


class Region(NamedTuple):
    """An entry of the region table (2.2.3.2): GUID (16), file offset (8), length (4), required (4)."""

    guid: bytes
    offset: int
    length: int
    required: bool


class Item(NamedTuple):
    """An entry of the metadata table (2.6.1.2): GUID (16), offset (4), length (4), flags (4)."""

    guid: bytes
    offset: int
    length: int
    required: bool


@dataclass(frozen=True, slots=True)
class DiskParameters:
    """What the metadata items say about the disk (2.6.2)."""

    block_size: int
    is_fixed: bool
    has_parent: bool
    virtual_size: int
    sector_size: int

    @property
    def blocks(self) -> int:
        """Payload blocks of the disk."""
        return -(-self.virtual_size // self.block_size)

    @property
    def block_sectors(self) -> int:
        """Logical sectors of a block."""
        return self.block_size // self.sector_size

    @property
    def chunk_ratio(self) -> int:
        """Payload BAT entries before each sector bitmap entry (2.5)."""
        return (1 << 23) * self.sector_size // self.block_size


def parse_header(block: bytes, file_offset: int) -> Header:
    """Parse one of the two headers.

    Raises:
        InvalidImage, ChecksumMismatch: It is no valid header; the other one may be.
    """
    what = f"the VHDX header at file offset {file_offset}"
    _require_signed(block, b"head", what, file_offset)
    _, _, sequence, _, data_guid, log_guid, log_version, version, log_length, log_offset = (
        _HEADER.unpack_from(block)
    )
    if version != 1:
        raise InvalidImage(f"{what} has version {version}, expected 1", offset=file_offset + 66)
    return Header(sequence, data_guid, log_guid, log_version, log_length, log_offset)


def parse_region_table(block: bytes, file_offset: int) -> list[Region]:
    """Parse one of the two region tables.

    Raises:
        InvalidImage, ChecksumMismatch: It is no valid table; the other one may be.
    """
    what = f"the VHDX region table at file offset {file_offset}"
    _require_signed(block, b"regi", what, file_offset)
    count = _REGION_HEAD.unpack_from(block)[2]
    _require_count(count, what, file_offset + 8)
    entries = struct.iter_unpack("<16sQII", block[16 : 16 + count * _REGION_ENTRY.size])
    return [Region(guid, offset, length, bool(flag & 1)) for guid, offset, length, flag in entries]


def parse_metadata_table(block: bytes, file_offset: int) -> list[Item]:
    """Parse the metadata table.

    Raises:
        InvalidImage: Signature, count or an entry break the rules.
    """
    what = f"the VHDX metadata table at file offset {file_offset}"
    signature, _, count, _ = _METADATA_HEAD.unpack_from(block)
    if signature != b"metadata":
        raise InvalidImage(f"{what} begins with {signature!r}", offset=file_offset)
    _require_count(count, what, file_offset + 10)
    entries = struct.iter_unpack("<16sIIII", block[32 : 32 + count * _METADATA_ENTRY.size])
    items = [Item(guid, at, length, bool(flags & 4)) for guid, at, length, flags, _ in entries]
    for item in items:
        if item.required and item.guid not in KNOWN_ITEMS:
            raise UnsupportedImage(
                f"{what} requires the unknown item {uuid.UUID(bytes_le=item.guid)}",
                offset=file_offset,
            )
    return items


def parse_parameters(items: dict[bytes, bytes], file_offset: int) -> DiskParameters:
    """Read the disk's parameters from the contents of the metadata items.

    Args:
        items: Item GUID -> bytes of the item.
        file_offset: Of the metadata region, for messages.

    Raises:
        InvalidImage: An item is missing, has a wrong length or an impossible value.
    """
    block_size, flags = _values(items, ITEM_FILE_PARAMETERS, "<II", "file parameters", file_offset)
    (virtual_size,) = _values(items, ITEM_VIRTUAL_SIZE, "<Q", "virtual disk size", file_offset)
    (sector,) = _values(items, ITEM_LOGICAL_SECTOR, "<I", "logical sector size", file_offset)
    if not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE or block_size & (block_size - 1):
        raise InvalidImage(
            f"VHDX block size {block_size}, expected a power of two from {MIN_BLOCK_SIZE} to"
            f" {MAX_BLOCK_SIZE}",
            offset=file_offset,
        )
    if sector not in SECTOR_SIZES:
        raise InvalidImage(
            f"VHDX logical sector size {sector}, expected 512 or 4096", offset=file_offset
        )
    if not 0 < virtual_size <= MAX_VIRTUAL_SIZE or virtual_size % sector:
        raise InvalidImage(
            f"VHDX virtual size {virtual_size}, expected a positive multiple of {sector} up to"
            f" {MAX_VIRTUAL_SIZE}",
            offset=file_offset,
        )
    return DiskParameters(block_size, bool(flags & 1), bool(flags & 2), virtual_size, sector)


def build_identifier(creator: str) -> bytes:
    """Build the file type identifier (2.2.1); `creator` is for people, at most 256 characters."""
    return (VHDX_SIGNATURE + creator.encode("utf-16-le")[:512]).ljust(4 * KiB, b"\0")


def build_header(header: Header, *, file_write_guid: bytes) -> bytes:
    """Build a header (2.2.2), 4096 bytes with their checksum."""
    return _sign(
        _HEADER.pack(
            b"head",
            0,
            header.sequence,
            file_write_guid,
            header.data_write_guid,
            header.log_guid,
            header.log_version,
            1,
            header.log_length,
            header.log_offset,
        ),
        HEADER_SIZE,
    )


def build_region_table(regions: Sequence[Region]) -> bytes:
    """Build a region table (2.2.3), 64 KiB with their checksum."""
    head = _REGION_HEAD.pack(b"regi", 0, len(regions), 0)
    return _sign(head + b"".join(_REGION_ENTRY.pack(*region) for region in regions), TABLE_SIZE)


def build_metadata(
    disk: DiskParameters, *, disk_id: bytes, physical_sector: int = 4096, locator: bytes = b""
) -> bytes:
    """Build the metadata table (2.6.1) and the items of a disk behind it (2.6.2).

    Args:
        disk: What the items say.
        disk_id: 16 bytes that no other disk has, but a child has its parent's; the guest can see them (SCSI page 83).
        physical_sector: 512 or 4096 bytes; the latter is what Hyper-V says of its own.
        locator: The item that names the parent, of a disk that has one.
    """
    flags = disk.is_fixed | disk.has_parent << 1
    items = [
        (ITEM_FILE_PARAMETERS, _REQUIRED, struct.pack("<II", disk.block_size, flags)),
        (ITEM_VIRTUAL_SIZE, _REQUIRED | _OF_DISK, struct.pack("<Q", disk.virtual_size)),
        (ITEM_DISK_ID, _REQUIRED | _OF_DISK, disk_id),
        (ITEM_LOGICAL_SECTOR, _REQUIRED | _OF_DISK, struct.pack("<I", disk.sector_size)),
        (ITEM_PHYSICAL_SECTOR, _REQUIRED | _OF_DISK, struct.pack("<I", physical_sector)),
    ]
    if disk.has_parent:
        items.append((ITEM_PARENT_LOCATOR, _REQUIRED, locator))
    table, contents = _METADATA_HEAD.pack(b"metadata", 0, len(items), b""), b""
    for guid, flag, content in items:
        table += _METADATA_ENTRY.pack(guid, TABLE_SIZE + len(contents), len(content), flag, 0)
        contents += content
    return table.ljust(TABLE_SIZE, b"\0") + contents


def _sign(block: bytes, size: int) -> bytes:
    """Pad a structure whose checksum field is zero to its size, and fill that field."""
    block = block.ljust(size, b"\0")
    return block[:4] + crc32c(block).to_bytes(4, "little") + block[8:]


def _values(
    items: dict[bytes, bytes], guid: bytes, layout: str, name: str, file_offset: int
) -> tuple[int, ...]:
    content = items.get(guid)
    if content is None:
        raise InvalidImage(f"the VHDX metadata lack the item {name}", offset=file_offset)
    if len(content) != struct.calcsize(layout):
        raise InvalidImage(
            f"the VHDX metadata item {name} has {len(content)} bytes, expected"
            f" {struct.calcsize(layout)}",
            offset=file_offset,
        )
    return struct.unpack(layout, content)


def _require_signed(block: bytes, signature: bytes, what: str, file_offset: int) -> None:
    if block[:4] != signature:
        raise InvalidImage(
            f"{what} begins with {block[:4]!r}, expected {signature!r}", offset=file_offset
        )
    stored = int.from_bytes(block[4:8], "little")
    computed = crc32c(block[:4] + bytes(4) + block[8:])
    if stored != computed:
        raise ChecksumMismatch(
            f"{what} has checksum {stored:#010x}, expected {computed:#010x}", offset=file_offset + 4
        )


def _require_count(count: int, what: str, file_offset: int) -> None:
    if count > MAX_ENTRIES:
        raise InvalidImage(
            f"{what} has {count} entries, expected at most {MAX_ENTRIES}", offset=file_offset
        )
