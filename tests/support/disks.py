"""Disk images for tests, made by hand or by qemu-img; the makers share no code with the readers."""

import hashlib
import lzma
import shutil
import struct
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import pytest

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
DATA_DIR = Path(__file__).resolve().parents[1] / "data" / "images"
SHARED_DIR = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"

needs_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is missing (apt: qemu-utils)"
)


def pattern(size: int, seed: int = 1) -> bytes:
    """Return `size` bytes without any zero block, different for each seed, never random."""
    block = hashlib.shake_128(b"imageport test pattern %d" % seed).digest(65536)
    return (block * (size // len(block) + 1))[:size]


def root_of(content: bytes) -> str:
    """Compute the root digest of a disk the slow and obvious way."""
    root = hashlib.sha256(b"imageport-digest/1\0" + struct.pack(">QQ", len(content), 524288))
    for offset in range(0, len(content), 524288):
        root.update(hashlib.sha256(content[offset : offset + 524288].ljust(524288, b"\0")).digest())
    return "sha256:" + root.hexdigest()


def write_sparse(path: Path, size: int, parts: dict[int, bytes]) -> Path:
    """Write a file of `size` bytes that holds `parts` (offset -> bytes) and holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
    return path


def qemu_img(*arguments: str | Path) -> str:
    """Run qemu-img and return its stdout."""
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def qemu_io(image: Path, *commands: str) -> None:
    """Write into a VMDK with qemu-io."""
    each = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", "vmdk", *each, str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def convert(source: Path, target: Path, form: str, options: str = "") -> Path:
    """Convert a raw file with qemu-img; `form` is raw, vpc or vhdx."""
    extra = ["-o", options] if options else []
    qemu_img("convert", "-f", "raw", "-O", form, *extra, source, target)
    return target


def unpack(packed: Path, folder: Path) -> Path:
    """Unpack a `.xz` sample into `folder`, zero blocks as holes; other files are only copied."""
    target = folder / packed.name.removesuffix(".xz")
    if packed.suffix != ".xz":
        return Path(shutil.copyfile(packed, target))
    with lzma.open(packed) as source, target.open("wb") as out:
        while block := source.read(MiB):
            if block.count(0) == len(block):
                out.seek(len(block), 1)
            else:
                out.write(block)
        out.truncate(out.tell())
    return target


# --- VHD -----------------------------------------------------------------------------------------


def vhd_sum(block: bytes, at: int) -> bytes:
    """Return `block` with the VHD checksum at offset `at` made right."""
    bare = block[:at] + bytes(4) + block[at + 4 :]
    return bare[:at] + struct.pack(">I", ~sum(bare) & 0xFFFFFFFF) + bare[at + 4 :]


def vhd_footer(
    size: int,
    *,
    disk_type: int = 2,
    data_offset: int = 2**64 - 1,
    creator: bytes = b"win ",
    saved_state: int = 0,
    chs: bytes = b"\xff\xff\x10\xff",
    unique_id: bytes = bytes(range(16)),
) -> bytes:
    """Build a footer by the specification's table."""
    head = struct.pack(
        ">8sIIQI4sI4sQQ4sII16sB",
        *(b"conectix", 2, 0x10000, data_offset, 0, creator, 0xA0000, b"Wi2k", size, size),
        *(chs, disk_type, 0, unique_id, saved_state),
    )
    return vhd_sum(head.ljust(512, b"\0"), 64)


def fixed_vhd(content: bytes, **fields: int | bytes) -> bytes:
    """Build a fixed VHD."""
    return content + vhd_footer(len(content), **fields)  # type: ignore[arg-type]


@dataclass
class DynamicVhd:
    """A dynamic VHD; change fields, or `bat` (block -> sector), before `build`."""

    size: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    block_size: int = 512 * KiB
    max_entries: int | None = None
    disk_type: int = 3
    unique_id: bytes = bytes(range(16))
    bat: dict[int, int] = field(default_factory=dict)

    def build(self) -> bytes:
        """Return the file: footer copy, header, BAT, blocks with bitmaps, footer."""
        count = -(-self.size // self.block_size)
        entries = count if self.max_entries is None else self.max_entries
        footer = vhd_footer(
            self.size, disk_type=self.disk_type, data_offset=512, unique_id=self.unique_id
        )
        header = struct.pack(
            ">8sQQIII", b"cxsparse", 2**64 - 1, 1536, 0x10000, entries, self.block_size
        )
        table_size = -(-max(entries, count) * 4 // 512) * 512
        bitmap = b"\xff" * (-(-self.block_size // 512 // 8 // 512) * 512)
        bat, data, sector = [0xFFFFFFFF] * (table_size // 4), b"", (1536 + table_size) // 512
        for block, content in self.blocks.items():
            bat[block] = sector + len(data) // 512
            data += bitmap + content.ljust(self.block_size, b"\0")
        for block, value in self.bat.items():
            bat[block] = value
        table = struct.pack(f">{len(bat)}I", *bat)
        return footer + vhd_sum(header.ljust(1024, b"\0"), 36) + table + data + footer


# --- VHDX ----------------------------------------------------------------------------------------

LOG_OFFSET, METADATA_OFFSET, BAT_OFFSET = 1 * MiB, 2 * MiB, 3 * MiB
BAT_GUID = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
METADATA_GUID = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
FILE_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
VIRTUAL_SIZE = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
LOGICAL_SECTOR = uuid.UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F").bytes_le
PHYSICAL_SECTOR = uuid.UUID("CDA348C7-445D-4471-9CC9-E9885251C556").bytes_le
DISK_ID = uuid.UUID("BECA12AB-B2E6-4523-93EF-C309E000C746").bytes_le


def signed(block: bytes, size: int) -> bytes:
    """Pad a VHDX structure to `size` and put its CRC-32C at offset 4."""
    block = block[:4] + bytes(4) + block[8:].ljust(size - 8, b"\0")
    return block[:4] + struct.pack("<I", google_crc32c.value(block)) + block[8:]


def vhdx_header(
    sequence: int = 1,
    *,
    log_guid: bytes = bytes(16),
    log: tuple[int, int] = (MiB, LOG_OFFSET),
    version: int = 1,
    data_guid: bytes = bytes(range(16, 32)),
) -> bytes:
    """Build a header; `log` is (length, offset)."""
    guids = bytes(range(16)) + data_guid
    body = struct.pack("<4sIQ32s16sHHIQ", b"head", 0, sequence, guids, log_guid, 0, version, *log)
    return signed(body, 4096)


def region_table(regions: list[tuple[bytes, int, int, int]]) -> bytes:
    """Build a region table of (GUID, offset, length, required)."""
    entries = b"".join(struct.pack("<16sQII", *region) for region in regions)
    return signed(struct.pack("<4sIII", b"regi", 0, len(regions), 0) + entries, 65536)


def metadata_region(items: list[tuple[bytes, bytes, int]]) -> bytes:
    """Build the metadata table and its items of (GUID, content, flags)."""
    table = struct.pack("<8sHH20s", b"metadata", 0, len(items), bytes(20))
    content = b""
    for guid, data, flags in items:
        table += struct.pack("<16sIIII", guid, 65536 + len(content), len(data), flags, 0)
        content += data
    return table.ljust(65536, b"\0") + content


@dataclass
class Vhdx:
    """A VHDX; change fields, or `parts` (file offset -> bytes) and `states`, before it is built.

    Attributes:
        blocks: Block number -> content, placed in this order behind the BAT.
        states: Block number -> whole BAT entry, over what `blocks` gives.
        parts: Bytes laid over the finished file, so that one lie at a time can be told.
    """

    size: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    block_size: int = MiB
    sector: int = 512
    flags: int = 0
    states: dict[int, int] = field(default_factory=dict)
    headers: tuple[bytes, bytes] = field(default_factory=lambda: (vhdx_header(1), vhdx_header(2)))
    regions: list[tuple[bytes, int, int, int]] | None = None
    extra_items: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    file_size: int | None = None

    @property
    def ratio(self) -> int:
        """Payload entries in a chunk."""
        return (1 << 23) * self.sector // self.block_size

    @property
    def bat_length(self) -> int:
        """Bytes of the BAT region."""
        count = -(-self.size // self.block_size)
        return -(-(count + count // self.ratio) * 8 // MiB) * MiB

    @property
    def data_offset(self) -> int:
        """Where the first block lies in the file."""
        return BAT_OFFSET + self.bat_length

    def entry_offset(self, block: int) -> int:
        """Where the BAT entry of a block lies in the file."""
        return BAT_OFFSET + (block + block // self.ratio) * 8

    def layout(self) -> tuple[int, dict[int, bytes]]:
        """Return the file's size and its parts."""
        regions = self.regions or [
            (METADATA_GUID, METADATA_OFFSET, MiB, 1),
            (BAT_GUID, BAT_OFFSET, self.bat_length, 1),
        ]
        items = [
            (FILE_PARAMETERS, struct.pack("<II", self.block_size, self.flags), 4),
            (VIRTUAL_SIZE, struct.pack("<Q", self.size), 6),
            (DISK_ID, bytes(16), 6),
            (LOGICAL_SECTOR, struct.pack("<I", self.sector), 6),
            (PHYSICAL_SECTOR, struct.pack("<I", 4096), 6),
            *self.extra_items,
        ]
        parts = {0: b"vhdxfile" + "tests".encode("utf-16-le")}
        parts |= {64 * KiB: self.headers[0], 128 * KiB: self.headers[1]}
        parts |= dict.fromkeys((192 * KiB, 256 * KiB), region_table(regions))
        parts[METADATA_OFFSET] = metadata_region(items)
        offset = self.data_offset
        for block, content in self.blocks.items():
            parts[self.entry_offset(block)] = struct.pack("<Q", offset | 6)
            parts[offset] = content
            offset += self.block_size
        for block, entry in self.states.items():
            parts[self.entry_offset(block)] = struct.pack("<Q", entry)
        return (self.file_size or offset), parts | self.parts

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
