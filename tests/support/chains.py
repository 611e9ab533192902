"""Differencing VHD and VHDX for tests, made by hand (no free tool writes them), and folders in memory for chains."""

import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imaging.errors import FileMissing
from imaging.memory import MemoryDevice
from tests.support.disks import (
    BAT_OFFSET,
    DynamicVhd,
    KiB,
    MiB,
    Vhdx,
    vhd_footer,
    vhd_sum,
    vhdx_header,
)

PARENT_LOCATOR = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").bytes_le
VHDX_LOCATOR = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
Writes = list[tuple[int, bytes]]
"""What one image of a chain changed: (offset, bytes), whole sectors."""


class MemoryFolder:
    """The files beside an image, in memory; knows which of them are open."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.opened: list[MemoryDevice] = []
        self.asked: list[str] = []

    def open(self, name: str) -> MemoryDevice:
        """Open a file of that name."""
        self.asked.append(name)
        if name not in self.files:
            raise FileMissing(f"{name}: no such file")
        self.opened.append(MemoryDevice(self.files[name], read_only=True))
        return self.opened[-1]

    @property
    def left_open(self) -> int:
        """How many files nobody closed."""
        return sum(not device._closed for device in self.opened)


# --- VHD -----------------------------------------------------------------------------------------


@dataclass
class VhdChild(DynamicVhd):
    """A differencing VHD over the parent with the unique id `parent_id`.

    Attributes:
        sectors: Block -> sectors that are in this image; a block without an entry is there whole.
        locators: (platform code, path) in the order of the entries.
        name: The header's parent name.
        stale: What lies under the 0 bits.
    """

    disk_type: int = 4
    sectors: dict[int, Iterable[int]] = field(default_factory=dict)
    parent_id: bytes = bytes(range(16))
    locators: list[tuple[bytes, str]] = field(default_factory=list)
    name: str = ""
    stale: int = 0xEE

    def build(self) -> bytes:
        """Return the file: footer copy, header, locators, BAT, blocks with bitmaps, footer."""
        count = -(-self.size // self.block_size)
        texts = [path.encode("utf-16-le") for _, path in self.locators]
        table_at = 2048 + 512 * len(texts)
        entries = b"".join(
            struct.pack(">4sIIIQ", code, 512, len(text), 0, 2048 + 512 * index)
            for index, ((code, _), text) in enumerate(zip(self.locators, texts, strict=True))
        )
        header = struct.pack(
            *(">8sQQIII4s16sI4x512s192s", b"cxsparse", 2**64 - 1, table_at, 0x10000),
            *(self.max_entries or count, self.block_size, bytes(4), self.parent_id, 0),
            *(self.name.encode("utf-16-be").ljust(512, b"\0"), entries.ljust(192, b"\0")),
        )
        table_size = -(-count * 4 // 512) * 512
        bat, data = [0xFFFFFFFF] * (table_size // 4), b""
        for block in self.blocks:
            bat[block] = (table_at + table_size + len(data)) // 512
            data += self._block(block)
        for block, value in self.bat.items():
            bat[block] = value
        footer = vhd_footer(
            self.size, disk_type=self.disk_type, data_offset=512, unique_id=self.unique_id
        )
        parts = [footer, vhd_sum(header.ljust(1024, b"\0"), 36), bytes(512)]
        parts += [text.ljust(512, b"\0") for text in texts]
        return b"".join([*parts, struct.pack(f">{len(bat)}I", *bat), data, footer])

    def _block(self, block: int) -> bytes:
        content = bytearray(self.blocks[block].ljust(self.block_size, b"\0"))
        total = self.block_size // 512
        here = set(self.sectors.get(block, range(total)))
        bits = bytearray(-(-total // 8 // 512) * 512)
        for sector in here:
            bits[sector // 8] |= 0x80 >> sector % 8
        for sector in set(range(total)) - here:
            content[sector * 512 : (sector + 1) * 512] = bytes([self.stale]) * 512
        return bytes(bits + content)


# --- VHDX ----------------------------------------------------------------------------------------


def parent_locator(values: Iterable[tuple[str, str]], kind: bytes = VHDX_LOCATOR) -> bytes:
    """Build the metadata item."""
    pairs = [(key.encode("utf-16-le"), value.encode("utf-16-le")) for key, value in values]
    head, text = struct.pack("<16sHH", kind, 0, len(pairs)), b""
    start = len(head) + 12 * len(pairs)
    for key, value in pairs:
        at = start + len(text)
        head += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        text += key + value
    return head + text


def linkage(guid: bytes) -> str:
    """Write a GUID as Hyper-V does."""
    return "{" + str(uuid.UUID(bytes_le=guid)).upper() + "}"


@dataclass
class VhdxChild(Vhdx):
    """A differencing VHDX over the parent with the data write GUID `parent_guid`.

    Attributes:
        sectors: Block -> sectors that are in this image; a block without an entry is there whole.
        paths: Locator key -> path.
        locator: The whole item, over what the fields above give.
        bitmap_entries: Chunk -> whole BAT entry of its bitmap, over what `sectors` gives.
    """

    flags: int = 2
    guid: bytes = bytes(range(16, 32))
    parent_guid: bytes = bytes(range(16, 32))
    paths: dict[str, str] = field(default_factory=dict)
    locator: bytes | None = None
    sectors: dict[int, Iterable[int]] = field(default_factory=dict)
    bitmap_entries: dict[int, int] = field(default_factory=dict)
    stale: int = 0xEE

    @property
    def bat_length(self) -> int:
        """Bytes of the BAT region: whole chunks."""
        chunks = -(-self.size // self.block_size // self.ratio)
        return -(-chunks * (self.ratio + 1) * 8 // MiB) * MiB

    def bitmap_entry_offset(self, chunk: int) -> int:
        """Where the BAT entry of a chunk's bitmap lies in the file."""
        return BAT_OFFSET + (chunk * (self.ratio + 1) + self.ratio) * 8

    def layout(self) -> tuple[int, dict[int, bytes]]:
        """Return the file's size and its parts."""
        values = [("parent_linkage", linkage(self.parent_guid)), *self.paths.items()]
        item = parent_locator(values) if self.locator is None else self.locator
        laid, self.parts, extra = self.parts, {}, self.extra_items
        self.extra_items = [*extra, (PARENT_LOCATOR, item, 4)]
        headers = tuple(vhdx_header(number, data_guid=self.guid) for number in (1, 2))
        if self.headers == (vhdx_header(1), vhdx_header(2)):
            self.headers = (headers[0], headers[1])
        size, parts = super().layout()
        self.parts, self.extra_items = laid, extra
        size = self._add_bitmaps(-(-size // MiB) * MiB, parts)
        for chunk, entry in self.bitmap_entries.items():
            parts[self.bitmap_entry_offset(chunk)] = struct.pack("<Q", entry)
        return (self.file_size or size), parts | laid

    def _add_bitmaps(self, size: int, parts: dict[int, bytes]) -> int:
        per_block, bitmaps = self.block_size // self.sector, dict[int, bytearray]()
        for block, sectors in self.sectors.items():
            chunk, place = divmod(block, self.ratio)
            bits, first = bitmaps.setdefault(chunk, bytearray(MiB)), place * per_block
            (entry,) = struct.unpack("<Q", parts[self.entry_offset(block)])
            parts[self.entry_offset(block)] = struct.pack("<Q", entry & ~7 | 7)
            content, here = bytearray(parts[entry & ~0xFFFFF]), set(sectors)
            for sector in here:
                bits[(first + sector) // 8] |= 1 << (first + sector) % 8
            for sector in set(range(len(content) // self.sector)) - here:
                hidden = slice(sector * self.sector, (sector + 1) * self.sector)
                content[hidden] = bytes([self.stale]) * self.sector
            parts[entry & ~0xFFFFF] = bytes(content)
        for chunk, bits in bitmaps.items():
            parts[self.bitmap_entry_offset(chunk)] = struct.pack("<Q", size | 6)
            parts[size] = bytes(bits)
            size += MiB
        return size


# --- chains --------------------------------------------------------------------------------------


def _changed(
    size: int, writes: Writes, block_size: int, sector: int
) -> tuple[dict[int, bytes], dict[int, set[int]]]:
    """Turn writes into the blocks of one image and the sectors of them that were written."""
    disk, blocks, sectors = (
        bytearray(-(-size // block_size) * block_size),
        {},
        dict[int, set[int]](),
    )
    for offset, data in writes:
        disk[offset : offset + len(data)] = data
        for number in range(offset // sector, (offset + len(data)) // sector):
            block, inside = divmod(number, block_size // sector)
            sectors.setdefault(block, set()).add(inside)
    for block in sectors:
        blocks[block] = bytes(disk[block * block_size : (block + 1) * block_size])
    return blocks, sectors


def vhdx_chain(
    layers: list[tuple[int, Writes]],
    *,
    name: str = "base",
    block_size: int = MiB,
    sector: int = 512,
) -> dict[str, bytes]:
    """Build base.vhdx, base.1.avhdx, base.2.avhdx, ... of (virtual size, writes), the base first."""
    files, names = {}, [f"{name}.vhdx", *(f"{name}.{n}.avhdx" for n in range(1, len(layers)))]
    for number, (size, writes) in enumerate(layers):
        blocks, sectors = _changed(size, writes, block_size, sector)
        guids = [bytes([n]) * 16 for n in (number, number + 1)]
        if number == 0:
            headers = tuple(vhdx_header(n, data_guid=guids[1]) for n in (1, 2))
            image = Vhdx(size, blocks, block_size=block_size, sector=sector)
            image.headers = (headers[0], headers[1])
        else:
            whole = block_size // sector
            image = VhdxChild(
                *(size, blocks),
                block_size=block_size,
                sector=sector,
                guid=guids[1],
                parent_guid=guids[0],
                paths={"relative_path": ".\\" + names[number - 1]},
                sectors={b: s for b, s in sectors.items() if len(s) < whole},
            )
        files[names[number]] = image.build()
    return files


def vhd_chain(
    layers: list[tuple[int, Writes]], *, name: str = "base", block_size: int = 512 * KiB
) -> dict[str, bytes]:
    """Build base.vhd, base.1.avhd, base.2.avhd, ... of (virtual size, writes), the base first."""
    files, names = {}, [f"{name}.vhd", *(f"{name}.{n}.avhd" for n in range(1, len(layers)))]
    for number, (size, writes) in enumerate(layers):
        blocks, sectors = _changed(size, writes, block_size, 512)
        own, parent = bytes([number + 1]) * 16, bytes([number]) * 16
        if number == 0:
            image = DynamicVhd(size, blocks, block_size=block_size, unique_id=own)
        else:
            image = VhdChild(
                *(size, blocks),
                block_size=block_size,
                unique_id=own,
                parent_id=parent,
                sectors=sectors,
                locators=[(b"W2ku", "C:\\gone\\" + names[number - 1])],
            )
        files[names[number]] = image.build()
    return files


def model(layers: list[tuple[int, Writes]]) -> bytes:
    """Return the disk that a chain holds: what a child does not say is its parent's, then zeros."""
    disk = b""
    for size, writes in layers:
        now = bytearray(disk[:size].ljust(size, b"\0"))
        for offset, data in writes:
            now[offset : offset + len(data)] = data
        disk = bytes(now)
    return disk
