"""Where the metadata of a sound image lie, and how its checksums are mended; shares no code with the readers.

A mutator that does not know this hits payload with most of its changes, and checksums with nearly all of the rest.
"""

import struct
from dataclasses import dataclass

import google_crc32c

from tests.fuzz.pages import Pages
from tests.support.chains import PARENT_LOCATOR
from tests.support.disks import BAT_GUID, METADATA_GUID, KiB, vhd_sum

_MOST = 4 * KiB
"""Bytes of a table that are mutated: its start, where entries are in use."""


@dataclass(frozen=True)
class Region:
    """Metadata of a file.

    Attributes:
        entry: Bytes of one entry of a table, or of the natural field; 0 for text.
        order: "little" or "big".
    """

    name: str
    offset: int
    length: int
    entry: int = 4
    order: str = "little"

    @property
    def end(self) -> int:
        return self.offset + self.length


def find_regions(form: str, file: Pages) -> list[Region]:
    """Return the metadata of a sound file."""
    found = {"vhd": _vhd, "vhdx": _vhdx, "vmdk": _vmdk, "qcow2": _qcow2, "ova": _ova}
    regions = found[form](file) if form in found else _raw(file)
    return [region for region in regions if 0 <= region.offset < region.end <= file.size]


def mend(form: str, file: Pages) -> None:
    """Make every checksum right that guards metadata, so that what was changed is looked at."""
    if form == "vhd":
        _mend_vhd(file)
    elif form == "vhdx":
        _mend_vhdx(file)
    elif form == "ova":
        _mend_tar(file)


def _raw(file: Pages) -> list[Region]:
    return [
        Region("start", 0, min(file.size, 1536)),
        Region("end", max(0, file.size - 512), min(512, file.size)),
    ]


# --- VHD


def _footer_offset(file: Pages) -> int:
    for length in (512, 511):
        if file.get(file.size - length, 8) == b"conectix":
            return file.size - length
    return file.size - 512


def _vhd(file: Pages) -> list[Region]:
    end = _footer_offset(file)
    regions = [Region("footer", end, 85, order="big")]
    footer = file.get(end, 512)
    if footer[63:64] not in (b"\3", b"\4"):
        return regions
    (header_at,) = struct.unpack(">Q", footer[16:24])
    header = file.get(header_at, 1024)
    table, entries, block = struct.unpack(">Q4xII", header[16:36])
    regions += [
        Region("footer copy", 0, 85, order="big"),
        Region("dynamic header", header_at, 64, order="big"),
        Region("parent name", header_at + 64, 64, 2, "big"),
        Region("locators", header_at + 576, 72, order="big"),
        Region("BAT", table, min(entries * 4, _MOST), order="big"),
    ]
    for at in range(576, 768, 24):
        length, place = struct.unpack(">I4xQ", header[at + 8 : at + 24])
        if header[at : at + 4] != bytes(4):
            regions.append(Region("locator text", place, min(length, _MOST), 2))
    bitmap = -(-(block // 512 // 8) // 512) * 512 or 512
    for entry in struct.unpack(f">{min(entries, 64)}I", file.get(table, min(entries, 64) * 4)):
        if entry != 0xFFFFFFFF:
            regions.append(Region("sector bitmap", entry * 512, bitmap, 1))
    return regions


def _mend_vhd(file: Pages) -> None:
    end = _footer_offset(file)
    tail = file.get(end, 512)
    file.put(end, vhd_sum(tail.ljust(512, b"\0"), 64)[: len(tail)])
    if file.size < 2048 or file.get(0, 8) != b"conectix":
        return
    file.put(0, vhd_sum(file.get(0, 512), 64))
    (header_at,) = struct.unpack(">Q", file.get(16, 8))
    for at in {header_at, 512}:
        header = file.get(at, 1024) if at < file.size else b""
        if header[:8] == b"cxsparse" and len(header) == 1024:
            file.put(at, vhd_sum(header, 36))


# --- VHDX

_HEADERS, _TABLES = (64 * KiB, 128 * KiB), (192 * KiB, 256 * KiB)


def _vhdx(file: Pages) -> list[Region]:
    regions = [Region("identifier", 0, 16)]
    regions += [Region(f"header {n}", at, 80) for n, at in enumerate(_HEADERS)]
    count = min(int.from_bytes(file.get(_TABLES[0] + 8, 4), "little"), 16)
    regions += [Region(f"region table {n}", at, 16 + 32 * count) for n, at in enumerate(_TABLES)]
    for at in range(_TABLES[0] + 16, _TABLES[0] + 16 + 32 * count, 32):
        guid, offset, length, _ = struct.unpack("<16sQII", file.get(at, 32))
        if guid == BAT_GUID:
            regions.append(Region("BAT", offset, min(length, 512), 8))
            # The entry of the first sector bitmap, and what stands round it.
            for ratio in (4096, 32768, 128, 2048):
                regions.append(Region("BAT chunk end", offset + ratio * 8 - 8, 24, 8))
        elif guid == METADATA_GUID:
            regions += _metadata(file, offset)
    regions += _log(file)
    return regions


def _metadata(file: Pages, offset: int) -> list[Region]:
    count = min(int.from_bytes(file.get(offset + 10, 2), "little"), 16)
    found = [Region("metadata table", offset, 32 + 32 * count)]
    for at in range(offset + 32, offset + 32 + 32 * count, 32):
        guid, place, length = struct.unpack("<16sII", file.get(at, 24))
        name = "parent locator" if guid == PARENT_LOCATOR else "metadata item"
        found.append(Region(name, offset + place, min(length, 1024)))
    return found


def _log(file: Pages) -> list[Region]:
    found = []
    for at in _HEADERS:
        if file.get(at + 48, 16) != bytes(16):
            length, offset = struct.unpack("<IQ", file.get(at + 68, 12))
            for place in range(offset, offset + min(length, 1 << 20), 4096):
                if file.get(place, 4) == b"loge":
                    found.append(Region("log entry", place, 160))
                elif file.get(place, 4) == b"data":
                    found += [Region("log data", place, 16), Region("log data", place + 4080, 16)]
    return list(dict.fromkeys(found))


def _signed(block: bytes) -> bytes:
    bare = block[:4] + bytes(4) + block[8:]
    return block[:4] + struct.pack("<I", google_crc32c.value(bare)) + block[8:]


def _mend_vhdx(file: Pages) -> None:
    for places, size in ((_HEADERS, 4096), (_TABLES, 65536)):
        for at in places:
            block = file.get(at, size)
            if len(block) == size:
                file.put(at, _signed(block))
    for at in _HEADERS:
        if file.get(at + 48, 16) != bytes(16):
            length, offset = struct.unpack("<IQ", file.get(at + 68, 12).ljust(12, b"\0"))
            _mend_log(file, offset, min(length, 1 << 20))


def _mend_log(file: Pages, offset: int, ring: int) -> None:
    for position in range(0, ring, 4096):
        head = file.get(offset + position, 64)
        length = int.from_bytes(head[8:12], "little")
        if head[:4] != b"loge" or not 4096 <= length <= ring or length % 4096:
            continue
        sectors = [file.get(offset + (position + at) % ring, 4096) for at in range(0, length, 4096)]
        file.put(offset + position, _signed(b"".join(sectors))[:4096])


# --- VMDK


def _vmdk(file: Pages, shift: int = 0, end: int | None = None) -> list[Region]:
    size = (file.size if end is None else end) - shift
    if file.get(shift, 4) != b"KDMV":
        return [Region("descriptor", shift, min(size, _MOST), 0)]
    head = file.get(shift, 512)
    capacity, grain, text, text_size, _, spare, directory = struct.unpack("<QQQQIQQ", head[12:64])
    regions = [Region("header", shift, 79)]
    if text:
        regions.append(Region("descriptor", shift + text * 512, min(text_size * 512, 1024), 0))
    if directory == 2**64 - 1:
        place = shift + size - 1024
        (directory,) = struct.unpack("<Q", file.get(place + 56, 8))
        regions += [
            Region("footer marker", place - 512, 16),
            Region("footer", place, 79),
            Region("end of stream", place + 512, 16),
        ]
    tables = min(-(-capacity // (grain * 512)), 16)
    for at in {spare, directory} - {0}:
        regions.append(Region("grain directory", shift + at * 512, tables * 4))
        for entry in struct.unpack(f"<{tables}I", file.get(shift + at * 512, tables * 4)):
            regions.append(Region("grain table", shift + entry * 512, 256))
            if int.from_bytes(head[8:12], "little") >> 17 & 1:
                regions.append(Region("table marker", shift + entry * 512 - 512, 16))
                for place in struct.unpack("<8I", file.get(shift + entry * 512, 32)):
                    if place:
                        regions.append(Region("grain", shift + place * 512, 40))
    return regions


# --- qcow2


def _qcow2(file: Pages) -> list[Region]:
    head = file.get(0, 112)
    bits, l1_count, l1 = struct.unpack(">I12xIQ", head[20:48])
    (refcounts,) = struct.unpack(">Q", head[48:56])
    extended = head[4:8] == b"\0\0\0\3" and head[79] & 16
    regions = [
        Region("header", 0, 112, order="big"),
        Region("extensions", 104, min(256, file.size - 104), order="big"),
        Region("L1", l1, min(l1_count * 8, 512), 8, "big"),
        Region("refcounts", refcounts, 16, 8, "big"),
    ]
    for (entry,) in struct.iter_unpack(">Q", file.get(l1, min(l1_count * 8, 128))):
        place = entry & 0x00FFFFFFFFFFFE00
        if not place:
            continue
        length = min(1 << bits, 512)
        regions.append(Region("L2", place, length, 16 if extended else 8, "big"))
        for (value,) in struct.iter_unpack(">Q", file.get(place, length)):
            if value >> 62 & 1:
                at = value & ((1 << 62 - (bits - 8)) - 1)
                regions.append(Region("compressed cluster", at, 48))
    return regions


# --- OVA


def _tar_headers(file: Pages) -> list[tuple[int, int]]:
    """Return (offset of the header, size of the member) as far as headers follow each other."""
    found, at = [], 0
    while at + 512 <= file.size and len(found) < 32:
        header = file.get(at, 512)
        if header[257:262] != b"ustar":
            break
        digits = header[124:135].strip(b" \0")
        size = int(digits, 8) if digits and all(48 <= c < 56 for c in digits) else 0
        found.append((at, size))
        at += 512 + -(-size // 512) * 512
    return found


def _ova(file: Pages) -> list[Region]:
    regions = []
    for at, size in _tar_headers(file):
        regions += [
            Region("tar name", at, 100, 0),
            Region("tar size", at + 124, 12, 0),
            Region("tar type", at + 156, 1),
            Region("tar magic", at + 257, 8, 0),
            Region("tar prefix", at + 345, 16, 0),
        ]
        content = file.get(at + 512, 16)
        if file.get(at, 100).rstrip(b"\0").endswith(b".ovf"):
            regions.append(Region("OVF", at + 512, size, 0))
        elif file.get(at + 156, 1) in (b"x", b"g"):
            regions.append(Region("pax", at + 512, size, 0))
        elif content.startswith(b"KDMV"):
            regions += _vmdk(file, at + 512, at + 512 + size)
    return regions


def _mend_tar(file: Pages) -> None:
    for at, _ in _tar_headers(file):
        header = file.get(at, 512)
        header = header[:148] + b" " * 8 + header[156:]
        file.put(at, header[:148] + b"%06o\0 " % sum(header) + header[156:])
