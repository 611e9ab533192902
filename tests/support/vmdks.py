"""VMDK and OVA images for tests, built by hand from the specifications; they share no code with the readers."""

import hashlib
import io
import struct
import tarfile
import zlib
from dataclasses import dataclass, field

from imaging.errors import FileMissing
from imaging.memory import MemoryDevice

SECTOR, KiB, MiB = 512, 1 << 10, 1 << 20
GRAIN = 8 * KiB
"""The smallest grain that there may be, so that small disks have many."""
IN_FOOTER = 2**64 - 1


def descriptor(
    *extents: str,
    create_type: str = "custom",
    cid: str = "12345678",
    parent: tuple[str, str] | None = None,
    more: str = "",
    newline: str = "\n",
) -> str:
    """Write a descriptor; `parent` is (CID, hint)."""
    lines = ["# Disk DescriptorFile", "version=1", f"CID={cid}"]
    lines.append(f"parentCID={parent[0] if parent else 'ffffffff'}")
    lines.append(f'createType="{create_type}"')
    if parent:
        lines.append(f'parentFileNameHint="{parent[1]}"')
    lines += [*more.splitlines(), "", "# Extent description", *extents]
    lines += ["", "# The Disk Data Base", "#DDB", "", 'ddb.adapterType = "lsilogic"', ""]
    return newline.join(lines)


def sectors(data: bytes) -> bytes:
    """Pad to whole sectors."""
    return data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")


def marker(value: int, size: int = 0, kind: int = 0) -> bytes:
    """Build a metadata marker, a sector."""
    return struct.pack("<QII", value, size, kind).ljust(SECTOR, b"\0")


def packed_grain(sector: int, content: bytes, level: int = 6) -> bytes:
    """Build a compressed grain with its marker and padding."""
    data = zlib.compress(content, level)
    return sectors(struct.pack("<QI", sector, len(data)) + data)


@dataclass
class SparseVmdk:
    """A sparse extent; change fields, or `entries` (grain -> sector), before it is built.

    Attributes:
        grains: Grain number -> content, placed in this order.
        text: The descriptor inside the file; None writes a fitting one, "" none.
        extra: Bytes behind each grain's data, so that grains need not be neighbours.
        spare: Grain -> sector in the redundant tables, over what the first have.
        parts: Bytes laid over the finished file.
    """

    size: int
    grains: dict[int, bytes] = field(default_factory=dict)
    grain_size: int = GRAIN
    version: int = 1
    flags: int = 3
    entries: dict[int, int] = field(default_factory=dict)
    spare: dict[int, int] = field(default_factory=dict)
    text: str | None = None
    parent: tuple[str, str] | None = None
    cid: str = "12345678"
    dirty: int = 0
    extra: bytes = b""
    parts: dict[int, bytes] = field(default_factory=dict)

    create_type = "monolithicSparse"

    @property
    def tables(self) -> int:
        """Grain tables."""
        return -(-self.size // (self.grain_size * 512))

    def descriptor(self) -> str:
        """Return the text inside the file."""
        if self.text is not None:
            return self.text
        line = f'RW {self.size // SECTOR} SPARSE "self.vmdk"'
        return descriptor(line, create_type=self.create_type, parent=self.parent, cid=self.cid)

    def header(self, *, directory: int, spare: int = 0, compression: int = 0) -> bytes:
        """Build the header; offsets in sectors."""
        text = len(sectors(self.descriptor().encode())) // SECTOR
        return struct.pack(
            "<4sIIQQQQIQQQB4sH433x",
            *(b"KDMV", self.version, self.flags, self.size // SECTOR, self.grain_size // SECTOR),
            *(
                1 if text else 0,
                text,
                512,
                spare,
                directory,
                1 + text,
                self.dirty,
                b"\n \r\n",
                compression,
            ),
        )

    def table_bytes(self, entries: dict[int, int]) -> bytes:
        """Build all grain tables."""
        table = [0] * (self.tables * 512)
        for grain, sector in entries.items():
            table[grain] = sector
        return struct.pack(f"<{len(table)}I", *table)

    def finish(self, file: bytes) -> bytes:
        """Lay the parts over the file."""
        content = bytearray(file)
        for offset, data in self.parts.items():
            content[offset : offset + len(data)] = data
        return bytes(content)

    def places(self) -> dict[str, int]:
        """Return where things are in the file, in sectors."""
        text = len(sectors(self.descriptor().encode())) // SECTOR
        directory = -(-self.tables * 4 // SECTOR)
        spare = 1 + text
        spare_tables = spare + directory
        first = spare_tables + self.tables * 4
        tables = first + directory
        grain = self.grain_size // SECTOR
        data = -(-(tables + self.tables * 4) // grain) * grain
        return {
            "spare": spare,
            "spare_tables": spare_tables,
            "directory": first,
            "tables": tables,
            "data": data,
        }

    def build(self) -> bytes:
        """Return the file: header, descriptor, redundant directory and tables, directory and tables, grains."""
        at = self.places()
        entries, data = {}, b""
        for grain, content in self.grains.items():
            entries[grain] = at["data"] + len(data) // SECTOR
            data += content.ljust(self.grain_size, b"\0") + self.extra
        entries |= self.entries
        file = bytearray(at["data"] * SECTOR)
        numbers = range(self.tables)
        for name, table, more in (
            ("spare", "spare_tables", self.spare),
            ("directory", "tables", {}),
        ):
            start, first = at[name] * SECTOR, at[table]
            addresses = [first + 4 * number for number in numbers]
            file[start : start + 4 * self.tables] = struct.pack(f"<{self.tables}I", *addresses)
            content = self.table_bytes(entries | more)
            file[first * SECTOR : first * SECTOR + len(content)] = content
        text = self.descriptor().encode()
        file[:SECTOR] = self.header(directory=at["directory"], spare=at["spare"])
        file[SECTOR : SECTOR + len(text)] = text
        return self.finish(bytes(file) + data)


@dataclass
class StreamVmdk(SparseVmdk):
    """A streamOptimized image as VMware writes it: markers, tables behind the grains, a footer.

    Attributes:
        markers: Grain -> what its marker says instead of its sector.
        raw: Grain -> compressed data, over what its content gives.
        has_footer: False builds qemu's kind: the header knows the directory.
        footer_parts: Bytes laid over the last three sectors.
    """

    flags: int = 0x30001
    version: int = 3
    level: int = 6
    markers: dict[int, int] = field(default_factory=dict)
    raw: dict[int, bytes] = field(default_factory=dict)
    has_footer: bool = True
    footer_parts: dict[int, bytes] = field(default_factory=dict)

    create_type = "streamOptimized"

    def grain(self, number: int, content: bytes) -> bytes:
        """Build a grain with its marker."""
        data = self.raw.get(number)
        if data is None:
            data = zlib.compress(content.ljust(self.grain_size, b"\0"), self.level)
        sector = self.markers.get(number, number * self.grain_size // SECTOR)
        return sectors(struct.pack("<QI", sector, len(data)) + data)

    def build(self) -> bytes:
        """Return the file: header, descriptor, grains, tables, directory, footer, end of stream."""
        text = sectors(self.descriptor().encode())
        entries, file = {}, bytearray(bytes(SECTOR) + text)
        for number, content in self.grains.items():
            entries[number] = len(file) // SECTOR
            file += self.grain(number, content) + self.extra
        entries |= self.entries
        addresses = []
        content = self.table_bytes(entries)
        for number in range(self.tables):
            table = content[number * 2048 : number * 2048 + 2048]
            if any(table):
                file += marker(4, 0, 1)
                addresses.append(len(file) // SECTOR)
                file += table
            else:
                addresses.append(0)
        directory = sectors(struct.pack(f"<{self.tables}I", *addresses))
        file += marker(len(directory) // SECTOR, 0, 2)
        place = len(file) // SECTOR
        file += directory
        footer = self.header(directory=place, compression=1)
        end = bytearray(marker(1, 0, 3) + footer + bytes(SECTOR) if self.has_footer else b"")
        for offset, data in self.footer_parts.items():
            end[offset : offset + len(data)] = data
        header = self.header(directory=IN_FOOTER, compression=1) if self.has_footer else footer
        file[:SECTOR] = header
        return self.finish(bytes(file + end))


def disk_of(size: int, grains: dict[int, bytes], grain_size: int = GRAIN) -> bytes:
    """Return the disk that those grains make."""
    disk = bytearray(-(-size // grain_size) * grain_size)
    for number, content in grains.items():
        disk[number * grain_size : number * grain_size + len(content)] = content
    return bytes(disk[:size])


OVF_NAMESPACE = "http://schemas.dmtf.org/ovf/envelope/1"
VMDK_URI = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"


def ovf(
    files: dict[str, str], disks: dict[str, str | None], *, attributes: str = "", head: str = ""
) -> bytes:
    """Write an OVF descriptor; `files` is id -> href, `disks` is id -> file id."""
    references = "".join(
        f'<File ovf:id="{key}" ovf:href="{href}" {attributes}/>' for key, href in files.items()
    )
    section = "".join(
        f'<Disk ovf:diskId="{key}" ovf:capacity="1" ovf:format="{VMDK_URI}"'
        + (f' ovf:fileRef="{file}"/>' if file else "/>")
        for key, file in disks.items()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        f'<Envelope xmlns="{OVF_NAMESPACE}" xmlns:ovf="{OVF_NAMESPACE}">'
        f"<References>{references}</References><DiskSection>{section}</DiskSection></Envelope>"
    ).encode()


def tar(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Pack members in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def ova(image: bytes, name: str = "disk-1.vmdk") -> bytes:
    """Pack an appliance of one disk."""
    text = ovf({"file1": name}, {"vmdisk1": "file1"})
    members = {"vm.ovf": text, name: image}
    lines = [
        f"SHA256({key})= {hashlib.sha256(data).hexdigest()}\n" for key, data in members.items()
    ]
    return tar({"vm.ovf": text, "vm.mf": "".join(lines).encode(), name: image})


class Folder:
    """Siblings in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self.opened: list[str] = []

    def open(self, name: str) -> MemoryDevice:
        """Open a file of the folder."""
        self.opened.append(name)
        if name not in self._files:
            raise FileMissing(f"{name}: No such file", path=name)
        return MemoryDevice(self._files[name], read_only=True)
