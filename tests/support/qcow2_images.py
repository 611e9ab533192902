"""qcow2 images for tests, made by hand from the specification; shares no code with the reader."""

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imaging.device import read_bytes
from imaging.errors import ImagingError
from imaging.formats import DiskImage
from imaging.formats.qcow2.device import open_qcow2
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, pattern, write_sparse

C = 4 * KiB
"""Bytes of a cluster, where a test does not say otherwise."""
TABLE = 512 * C
"""Bytes of the disk that one L2 table covers then."""
SUB = 16 * KiB
"""Bytes of a cluster with subclusters of 512 bytes."""

COPIED, COMPRESSED = 1 << 63, 1 << 62
BACKING_FORMAT, DATA_FILE, FEATURE_NAMES = 0xE2792ACA, 0x44415441, 0x6803F857


def deflated(content: bytes) -> bytes:
    """Compress a cluster as qcow2 wants it: raw, window of 4 KiB."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -12)
    return packer.compress(content) + packer.flush()


def extension(kind: int, content: bytes) -> bytes:
    """Build a header extension."""
    padded = content.ljust(-(-len(content) // 8) * 8, b"\0")
    return struct.pack(">II", kind, len(content)) + padded


@dataclass
class Qcow2:
    """A qcow2; change fields, or `entries`, `l1` and `parts`, before it is built.

    In the file: header, refcount table, refcount block, L1 table, L2 tables of those parts of the disk that have
    any entry, clusters in the order given, packed clusters one right behind the other.

    Attributes:
        clusters: Guest cluster -> content.
        packed: Guest cluster -> compressed bytes.
        entries: Guest cluster -> whole L2 entry, over what the two above give.
        bitmaps: Guest cluster -> subcluster bitmap; with `extended`, clusters are all allocated without.
        l1: L1 index -> whole entry.
        data_file: Name of the external data file; the clusters are then not in the image.
        fields: Header offset -> bytes laid over the header.
        parts: Bytes laid over the finished file, so that one lie at a time can be told.
    """

    size: int
    clusters: dict[int, bytes] = field(default_factory=dict)
    packed: dict[int, bytes] = field(default_factory=dict)
    cluster_bits: int = 12
    version: int = 3
    extended: bool = False
    compression: int = 0
    features: int = 0
    autoclear: int = 0
    snapshots: int = 0
    entries: dict[int, int] = field(default_factory=dict)
    bitmaps: dict[int, int] = field(default_factory=dict)
    l1: dict[int, int] = field(default_factory=dict)
    backing: bytes = b""
    backing_format: bytes = b""
    data_file: bytes = b""
    extensions: bytes = b""
    fields: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    file_size: int | None = None

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def table_entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // (16 if self.extended else 8)

    @property
    def l1_entries(self) -> int:
        """Entries of the L1 table."""
        return -(-self.size // (self.cluster * self.table_entries))

    @property
    def l1_offset(self) -> int:
        """Where the L1 table lies in the file."""
        return 3 * self.cluster

    @property
    def tables(self) -> list[int]:
        """L1 indexes that have an L2 table, in order."""
        used = [*self.clusters, *self.packed, *self.entries, *self.bitmaps]
        return sorted({cluster // self.table_entries for cluster in used})

    def table_offset(self, index: int) -> int:
        """Where the L2 table of an L1 index lies in the file."""
        first = 3 + -(-self.l1_entries * 8 // self.cluster)
        return (first + self.tables.index(index)) * self.cluster

    def entry_offset(self, cluster: int) -> int:
        """Where the L2 entry of a guest cluster lies in the file."""
        table, index = divmod(cluster, self.table_entries)
        return self.table_offset(table) + index * (16 if self.extended else 8)

    @property
    def data_offset(self) -> int:
        """Where the first cluster lies in the file."""
        return (3 + -(-self.l1_entries * 8 // self.cluster) + len(self.tables)) * self.cluster

    def header(self) -> bytes:
        """Return the header with its extensions and the backing file's name."""
        features = self.features | bool(self.data_file) << 2
        features |= bool(self.compression) << 3 | self.extended << 4
        more = b"".join(
            extension(kind, content)
            for kind, content in (
                (BACKING_FORMAT, self.backing_format),
                (DATA_FILE, self.data_file),
            )
            if content
        )
        more += self.extensions + bytes(8)
        length = 72 if self.version == 2 else 112
        name_at = length + len(more) if self.backing else 0
        head = struct.pack(
            ">4sIQIIQIIQQIIQ",
            *(b"QFI\xfb", self.version, name_at, len(self.backing), self.cluster_bits, self.size),
            *(0, self.l1_entries, self.l1_offset, self.cluster, 1, self.snapshots, 0),
        )
        if self.version > 2:
            head += struct.pack(">QQQII", features, 0, self.autoclear, 4, length)
            head += bytes([self.compression]) + bytes(7)
        head += more + self.backing
        for offset, data in self.fields.items():
            head = head[:offset] + data + head[offset + len(data) :]
        return head

    def layout(self) -> tuple[int, dict[int, bytes]]:
        """Return the file's size and its parts."""
        parts = {0: self.header(), self.cluster: struct.pack(">Q", 2 * self.cluster)}
        parts[2 * self.cluster] = b"\0\1" * (self.cluster // 2)
        for index in self.tables:
            entry = self.table_offset(index) | COPIED
            parts[self.l1_offset + index * 8] = struct.pack(">Q", entry)
        for index, entry in self.l1.items():
            parts[self.l1_offset + index * 8] = struct.pack(">Q", entry)
        offset = self.data_offset
        for cluster, content in self.clusters.items():
            if self.data_file:
                parts[self.entry_offset(cluster)] = self._entry(
                    cluster, cluster * self.cluster | COPIED
                )
                continue
            parts[self.entry_offset(cluster)] = self._entry(cluster, offset | COPIED)
            parts[offset] = content
            offset += self.cluster
        for cluster, content in self.packed.items():
            sectors = (offset + len(content) - 1) // 512 - offset // 512
            entry = COMPRESSED | sectors << 62 - (self.cluster_bits - 8) | offset
            parts[self.entry_offset(cluster)] = struct.pack(">Q", entry)
            parts[offset] = content
            offset += len(content)
        for cluster, bitmap in self.bitmaps.items():
            parts.setdefault(self.entry_offset(cluster) + 8, struct.pack(">Q", bitmap))
        for cluster, entry in self.entries.items():
            at = self.entry_offset(cluster)
            parts[at] = struct.pack(">Q", entry) + parts.get(at, b"")[8:]
        size = self.file_size or -(-offset // 512) * 512
        return size, parts | self.parts

    def build(self) -> bytes:
        """Return the file as bytes (small ones only)."""
        size, parts = self.layout()
        file = bytearray(size)
        for offset, data in parts.items():
            file[offset : offset + len(data)] = data
        return bytes(file[:size])

    def write(self, path: Path) -> Path:
        """Write the file, sparse."""
        return write_sparse(path, *self.layout())

    def _entry(self, cluster: int, entry: int) -> bytes:
        if not self.extended:
            return struct.pack(">Q", entry)
        return struct.pack(">QQ", entry, self.bitmaps.get(cluster, 0xFFFFFFFF))


class Counting(MemoryDevice):
    """Counts how often it is read."""

    reads = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read, and count it."""
        self.reads += 1
        super().read_into(offset, buffer)


def content(seed: int) -> bytes:
    """Return one cluster of 4 KiB."""
    return pattern(C, seed)


def small(**fields: Any) -> Qcow2:
    """Build a sound disk of eight clusters, two of them there: at 5 and 6 clusters; the L2 table is at 4."""
    return Qcow2(8 * C, {0: content(0), 2: content(2)}, **fields)


def extended(**fields: Any) -> Qcow2:
    """Build a sound disk of four clusters with subclusters, two of them there."""
    clusters = {0: pattern(SUB, 0), 2: pattern(SUB, 2)}
    return Qcow2(4 * SUB, clusters, cluster_bits=14, extended=True, **fields)


def opened(image: Qcow2) -> DiskImage:
    """Open an image in memory."""
    return open_qcow2(MemoryDevice(image.build()))


def refusal(image: Qcow2) -> ImagingError:
    """Return why the image cannot be opened, or else not be read."""
    try:
        disk = opened(image)
        read_bytes(disk, 0, disk.size)
    except ImagingError as err:
        return err
    raise AssertionError("it was opened and read")
