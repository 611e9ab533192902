"""The bytes of a qcow2's metadata: header, header extensions, table entries, parsed and checked.

Implements "qcow2" (qemu, docs/interop/qcow2.txt), versions 2 and 3; all numbers are big-endian. Reads no file:
places and lengths that only the file's size can judge are checked by the reader.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from imaging.errors import InvalidImage, Truncated, UnsupportedImage
from imaging.formats.signatures import MAX_VIRTUAL_SIZE, QCOW2_MAGIC
from imaging.units import MiB

V2_HEADER_SIZE = 72
V3_HEADER_SIZE = 104
"""The least that version 3 has; the compression type stands right behind it."""
MAX_HEADER_SIZE = V3_HEADER_SIZE + 8
"""What `parse_header` looks at."""

MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MIN_EXTENDED_CLUSTER_BITS = 14
MAX_L1_SIZE = 32 * MiB
"""Bytes of an L1 table, the limit of qemu: no writer makes a longer one."""
MAX_BACKING_NAME = 1023
SUBCLUSTERS = 32
"""Of each cluster, in images with extended L2 entries."""

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
"""Incompatible features: whoever does not know one must not open the image."""
_KNOWN_FEATURES = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2
BITMAPS = 1 << 0
"""Autoclear feature: the bitmaps extension is up to date; without it, it counts for nothing."""
RAW_EXTERNAL_DATA = 1 << 1
"""Autoclear feature: the data file is a raw disk too."""

BACKING_FORMAT = 0xE279_2ACA
DATA_FILE_NAME = 0x4441_5441
_FEATURE_NAMES = 0x6803_F857
_BITMAPS = 0x2385_2875
_END = 0
_ONCE = (BACKING_FORMAT, DATA_FILE_NAME, _FEATURE_NAMES, _BITMAPS)

DEFLATE, ZSTD = 0, 1
"""Compression types. "Deflate" is raw, without the wrapper of zlib, and has a window of 4 KiB."""
_ENCRYPTIONS = {1: "AES", 2: "LUKS"}

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55 of L1 and L2 entries: file offset of an L2 table, or of a cluster."""
COPIED = 1 << 63
COMPRESSED = 1 << 62
ALL_ZEROS = 1 << 0
L1_RESERVED = 0x7F00_0000_0000_01FF
L2_RESERVED = 0x3F00_0000_0000_01FE
TABLE_RESERVED = 0x1FF
"""Of entries of the refcount table, whose other bits are the offset of a refcount block."""
SECTOR = 512
"""Unit of the length of compressed clusters."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_V3_FIELDS = struct.Struct(">QQQII")
_BITMAPS_EXTENSION = struct.Struct(">IIQQ")


@dataclass(frozen=True, slots=True)
class Header:
    r"""The header, versions 2 (72 bytes) and 3 (104 bytes and more).

    | offset | size | field |
    |---|---|---|
    | 0 | 4 | magic `QFI\xfb` |
    | 4 | 4 | version, 2 or 3 |
    | 8 | 8 | offset of the backing file's name, 0: none |
    | 16 | 4 | its length |
    | 20 | 4 | cluster bits |
    | 24 | 8 | virtual size in bytes |
    | 32 | 4 | encryption: 0 none, 1 AES, 2 LUKS |
    | 36 | 4 | entries of the active L1 table |
    | 40 | 8 | its offset |
    | 48 | 8 | offset of the refcount table |
    | 56 | 4 | its clusters |
    | 60 | 4 | internal snapshots |
    | 64 | 8 | offset of the snapshot table |
    | 72 | 8 | incompatible features |
    | 80 | 8 | compatible features |
    | 88 | 8 | autoclear features |
    | 96 | 4 | refcount order |
    | 100 | 4 | header length |
    | 104 | 1 | compression type: 0 deflate, 1 zstd |
    """

    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    virtual_size: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    autoclear: int
    refcount_order: int
    length: int
    compression: int

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def is_extended(self) -> bool:
        """Whether L2 entries have 16 bytes and describe subclusters."""
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """Whether the clusters are in another file."""
        return bool(self.incompatible & EXTERNAL_DATA)

    @property
    def table_bits(self) -> int:
        """Binary logarithm of the entries in an L2 table, which fills one cluster."""
        return self.cluster_bits - (4 if self.is_extended else 3)

    @property
    def l1_needed(self) -> int:
        """L1 entries that the virtual size takes; further ones hold what is no part of the disk."""
        return -(-self.virtual_size >> (self.cluster_bits + self.table_bits))


class CompressedCluster(NamedTuple):
    """Where a compressed cluster lies.

    Attributes:
        offset: In the file, not aligned.
        length: Bytes at most, to the end of the last sector: decompression ends by itself.
    """

    offset: int
    length: int


class BitmapDirectory(NamedTuple):
    """The bitmaps extension: how many bitmaps there are, and where their directory lies."""

    bitmaps: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Names:
    """The names of other files in the first cluster; bytes that are no UTF-8 are kept as what no name may have.

    Attributes:
        backing: Of the backing file, "" if there is none.
        backing_format: By qemu's names, "" if it is not said.
        data_file: Of the external data file, "" if it is not said.
        bitmaps: Dirty bitmaps that count, None if there are none.
    """

    backing: str
    backing_format: str
    data_file: str
    bitmaps: BitmapDirectory | None = None


def parse_header(head: bytes) -> Header:
    """Parse the first MAX_HEADER_SIZE bytes of a file, or all if it is shorter.

    Incompatible features that are not known are refused by `parse_names`, which may know what they are called.

    Raises:
        InvalidImage: It is no qcow2, or a field breaks the rules.
        UnsupportedImage: Another version, encryption, or more than 64 TiB.
    """
    if not head.startswith(QCOW2_MAGIC):
        raise InvalidImage(
            f"the file begins with {head[:4]!r}, expected {QCOW2_MAGIC!r}: it is no qcow2", offset=0
        )
    _require_length(head, V2_HEADER_SIZE)
    version = int.from_bytes(head[4:8], "big")
    if version not in (2, 3):
        name = "qcow version 1" if version == 1 else f"qcow2 version {version}"
        raise UnsupportedImage(f"{name} is not read, only qcow2 versions 2 and 3", offset=4)
    _require_length(head, V3_HEADER_SIZE if version == 3 else V2_HEADER_SIZE)
    header = _unpack(head, version)
    _require_geometry(header)
    _require_features(header)
    return header


def parse_names(area: bytes, header: Header) -> Names:
    """Parse the header extensions and the backing file's name.

    Args:
        area: The file's first cluster, or all of a shorter file.
        header: Of the same file.

    Raises:
        Truncated: The file ends before the backing file's name does.
        InvalidImage: An extension leaves the area before the backing file's name, or appears twice.
        UnsupportedImage: The image has a feature that is not known; named, where the image names it.
    """
    start, length = header.backing_offset, header.backing_length
    if start + length > len(area):
        raise Truncated(
            f"the file ends at {len(area)}, before the end of the backing file's name", offset=start
        )
    found = _parse_extensions(area, header.length, start or len(area))
    unknown = header.incompatible & ~_KNOWN_FEATURES
    if unknown:
        names = ", ".join(_feature_names(unknown, found.get(_FEATURE_NAMES, b"")))
        raise UnsupportedImage(
            f"the qcow2 needs features that are not known: {names}", offset=72, found=unknown
        )
    return Names(
        backing=_text(area[start : start + length] if start else b""),
        backing_format=_text(found.get(BACKING_FORMAT, b"")),
        data_file=_text(found.get(DATA_FILE_NAME, b"")),
        bitmaps=_bitmaps(found.get(_BITMAPS, b""), header),
    )


def parse_compressed(entry: int, cluster_bits: int) -> CompressedCluster:
    """Parse the L2 entry of a compressed cluster ("Compressed Clusters Descriptor")."""
    bits = 62 - (cluster_bits - 8)
    offset = entry & ((1 << bits) - 1)
    sectors = ((entry & (COMPRESSED - 1)) >> bits) + 1
    return CompressedCluster(offset, sectors * SECTOR - offset % SECTOR)


def _require_length(head: bytes, needed: int) -> None:
    if len(head) < needed:
        raise Truncated(
            f"the file has {len(head)} bytes, the header of a qcow2 has {needed}", offset=len(head)
        )


def _unpack(head: bytes, version: int) -> Header:
    fields = _HEADER.unpack_from(head)
    encryption = fields[6]
    if encryption:
        name = _ENCRYPTIONS.get(encryption, f"method {encryption}")
        raise UnsupportedImage(f"the qcow2 is encrypted ({name})", offset=32, found=encryption)
    incompatible, autoclear, order, length, compression = 0, 0, 4, V2_HEADER_SIZE, DEFLATE
    if version > 2:
        incompatible, _, autoclear, order, length = _V3_FIELDS.unpack_from(head, V2_HEADER_SIZE)
        compression = head[V3_HEADER_SIZE] if min(length, len(head)) > V3_HEADER_SIZE else DEFLATE
    if order > 6:
        raise InvalidImage(f"qcow2 refcount order {order}, expected at most 6", offset=96)
    return Header(
        version=version,
        backing_offset=fields[2],
        backing_length=fields[3] if fields[2] else 0,
        cluster_bits=fields[4],
        virtual_size=fields[5],
        l1_entries=fields[7],
        l1_offset=fields[8],
        refcount_offset=fields[9],
        refcount_clusters=fields[10],
        snapshots=fields[11],
        snapshots_offset=fields[12],
        incompatible=incompatible,
        autoclear=autoclear,
        refcount_order=order,
        length=length,
        compression=compression,
    )


def _parse_extensions(area: bytes, position: int, end: int) -> dict[int, bytes]:
    """Return the extensions by type: type (4), length (4), content, padding to 8 bytes."""
    found: dict[int, bytes] = {}
    while position + 8 <= end:
        kind, length = struct.unpack_from(">II", area, position)
        if kind == _END:
            break
        if length > end - position - 8:
            raise InvalidImage(
                f"the qcow2 header extension {kind:#010x} has {length} bytes, but the area ends at {end}",
                offset=position,
            )
        if kind in found and kind in _ONCE:
            raise InvalidImage(
                f"the qcow2 header extension {kind:#010x} appears twice", offset=position
            )
        found[kind] = area[position + 8 : position + 8 + length]
        position += 8 + -(-length // 8) * 8
    return found


def _bitmaps(content: bytes, header: Header) -> BitmapDirectory | None:
    """Parse the bitmaps extension: count (4), reserved (4), bytes (8) and offset (8) of the directory."""
    if not header.autoclear & BITMAPS or len(content) < _BITMAPS_EXTENSION.size:
        return None
    count, _, length, offset = _BITMAPS_EXTENSION.unpack_from(content)
    return BitmapDirectory(count, offset, length) if count else None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _require_geometry(header: Header) -> None:
    bits = header.cluster_bits
    least = MIN_EXTENDED_CLUSTER_BITS if header.is_extended else MIN_CLUSTER_BITS
    if not least <= bits <= MAX_CLUSTER_BITS:
        raise InvalidImage(
            f"qcow2 cluster bits {bits}, expected {least} to {MAX_CLUSTER_BITS}", offset=20
        )
    if header.virtual_size == 0:
        raise InvalidImage("the qcow2 has a virtual size of 0, expected a disk", offset=24)
    if header.virtual_size > MAX_VIRTUAL_SIZE:
        raise UnsupportedImage(
            f"qcow2 virtual size {header.virtual_size}, expected at most {MAX_VIRTUAL_SIZE}",
            offset=24,
        )
    if header.l1_entries * 8 > MAX_L1_SIZE or header.l1_entries < header.l1_needed:
        raise InvalidImage(
            f"the qcow2 L1 table has {header.l1_entries} entries, expected {header.l1_needed} to"
            f" {MAX_L1_SIZE // 8}",
            offset=36,
        )
    for at, name, offset in (
        (40, "L1", header.l1_offset),
        (48, "refcount", header.refcount_offset),
    ):
        if offset == 0 or offset % header.cluster_size:
            raise InvalidImage(
                f"the qcow2 {name} table is at file offset {offset}, expected a positive multiple"
                f" of {header.cluster_size}",
                offset=at,
            )


def _require_features(header: Header) -> None:
    if not header.length <= header.cluster_size or header.length % 8:
        raise InvalidImage(
            f"the qcow2 header has {header.length} bytes, expected a multiple of 8 up to"
            f" {header.cluster_size}",
            offset=100,
        )
    if header.version > 2 and header.length < V3_HEADER_SIZE:
        raise InvalidImage(
            f"the qcow2 header has {header.length} bytes, expected at least {V3_HEADER_SIZE}",
            offset=100,
        )
    if bool(header.incompatible & COMPRESSION_TYPE) != (header.compression != DEFLATE):
        raise InvalidImage(
            f"the qcow2 compression type is {header.compression}, but its feature bit says otherwise",
            offset=V3_HEADER_SIZE,
        )
    if header.compression not in (DEFLATE, ZSTD):
        raise UnsupportedImage(
            f"qcow2 compression type {header.compression} is not known, only deflate and zstd",
            offset=V3_HEADER_SIZE,
        )
    if header.autoclear & RAW_EXTERNAL_DATA and not header.has_data_file:
        raise InvalidImage("the qcow2 says that its data file is raw, but has none", offset=88)
    if header.has_data_file and header.autoclear & RAW_EXTERNAL_DATA and header.backing_offset:
        raise InvalidImage("the qcow2 has a raw data file and a backing file", offset=8)
    _require_backing_name(header)


def _require_backing_name(header: Header) -> None:
    offset, length = header.backing_offset, header.backing_length
    if offset == 0:
        return
    inside = header.length <= offset and offset + length <= header.cluster_size
    if not inside or not 0 < length <= MAX_BACKING_NAME:
        raise InvalidImage(
            f"the backing file's name has {length} bytes at file offset {offset}, expected 1 to"
            f" {MAX_BACKING_NAME} between the header and the end of the first cluster",
            offset=8,
        )


def _feature_names(bits: int, table: bytes) -> list[str]:
    """Name incompatible features by the image's own table of (type 0, bit, 46 bytes of name)."""
    names = {}
    for at in range(0, len(table) - len(table) % 48, 48):
        if table[at] == 0:
            names[table[at + 1]] = table[at + 2 : at + 48].rstrip(b"\0").decode("ascii", "replace")
    unknown = (bit for bit in range(64) if bits >> bit & 1)
    return [f"bit {bit} ({names[bit]!r})" if bit in names else f"bit {bit}" for bit in unknown]
