"""The bytes of a tar header: checked and parsed; reads no file and extracts nothing.

POSIX.1-2017 "pax", "ustar Interchange Format", and the sizes that GNU tar writes as base-256 numbers.
"""

import re
from dataclasses import dataclass

from imaging.errors import InvalidImage
from imaging.units import TiB

BLOCK_SIZE = 512
MAX_MEMBER_SIZE = 64 * TiB
MAX_PAX_SIZE = 64 * 1024
"""Bytes of a pax header: a name and a size need a hundred."""

_MAGICS = (b"ustar\x0000", b"ustar  \0")
"""POSIX, and GNU tar's old own format."""
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_PAX_RECORD = re.compile(rb"([0-9]{1,6}) ([^=\n]{1,64})=")


@dataclass(frozen=True, slots=True)
class TarHeader:
    """What one header says of its member.

    | offset | size | field |
    |---|---|---|
    | 0 | 100 | name |
    | 124 | 12 | size, octal, or base 256 if the first bit is set |
    | 148 | 8 | checksum: sum of all bytes, its own as spaces |
    | 156 | 1 | type |
    | 157 | 100 | link name |
    | 257 | 8 | magic and version |
    | 345 | 155 | prefix of the name |

    Attributes:
        name: As in the archive.
        size: Bytes of the content behind the header.
        type: One character; "0" is a regular file.
    """

    name: str
    size: int
    type: str


def parse_tar_header(block: bytes, file_offset: int) -> TarHeader | None:
    """Parse the header at `file_offset`; return None for the zeros that end an archive.

    Raises:
        InvalidImage: It is no header.
    """
    if not any(block):
        return None
    if block[257:265] not in _MAGICS:
        raise _error("no tar header", file_offset + 257, block[257:265])
    stored = _octal(block[148:156], file_offset + 148)
    computed = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored != computed:
        raise _error(f"a tar header with checksum {stored}, expected {computed}", file_offset + 148)
    name = block[:100].split(b"\0", 1)[0]
    # GNU's old format has times where POSIX has the prefix.
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:265] == _MAGICS[0] else b""
    kind = block[156:157]
    return TarHeader(
        name=(prefix + b"/" + name if prefix else name).decode("utf-8", "replace"),
        size=_size(block[124:136], file_offset + 124),
        type="0" if kind == b"\0" else kind.decode("latin-1"),
    )


def parse_pax(content: bytes, file_offset: int) -> dict[str, str]:
    """Parse the records of a pax header: `length key=value` and a newline.

    Raises:
        InvalidImage: A record is not as long as it says.
    """
    records: dict[str, str] = {}
    position = 0
    while position < len(content):
        found = _PAX_RECORD.match(content, position)
        end = position + int(found[1]) if found else 0
        if found is None or not found.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise _error("a damaged pax record", file_offset + position)
        records[found[2].decode("utf-8", "replace")] = content[found.end() : end - 1].decode(
            "utf-8", "replace"
        )
        position = end
    return records


def pax_size(text: str, file_offset: int) -> int:
    """Return the size that a pax header gives.

    Raises:
        InvalidImage: It is no number, or too big for any disk.
    """
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise _error(f"a pax size of {text[:40]!r}", file_offset)
    return _bounded(int(text), file_offset)


def _size(field: bytes, file_offset: int) -> int:
    if field[0] & 0x80:
        return _bounded(int.from_bytes(field, "big") & ~(0x80 << 88), file_offset)
    return _bounded(_octal(field, file_offset), file_offset)


def _octal(field: bytes, file_offset: int) -> int:
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise _error("a tar header without a number", file_offset, field)
    return int(found[1], 8)


def _bounded(size: int, file_offset: int) -> int:
    if size > MAX_MEMBER_SIZE:
        raise _error(f"a tar member of {size} bytes", file_offset)
    return size


def _error(what: str, file_offset: int, found: bytes | None = None) -> InvalidImage:
    tail = "" if found is None else f": found {found!r}"
    return InvalidImage(f"{what} at file offset {file_offset}{tail}", offset=file_offset)
