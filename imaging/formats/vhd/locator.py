"""The bytes by which a differencing VHD names its parent: locator entries, paths, the name; reads no file.

Implements "Virtual Hard Disk Image Format Specification" 1.0, "Parent Locator Entry". All numbers are big-endian,
the text of locators is UTF-16 little-endian and that of the header's name big-endian.
"""

import struct
from dataclasses import dataclass

from imaging.errors import InvalidImage

NAME_AT, LOCATORS_AT = 64, 576
"""Where the dynamic header has the parent's name and the locator entries."""

RELATIVE, ABSOLUTE = b"W2ru", b"W2ku"
"""The platform codes that Windows writes; the others are of systems that are gone, and are not read."""

_MAX_PATH_BYTES = 4096
_ENTRY = struct.Struct(">4sIIIQ")


@dataclass(frozen=True, slots=True)
class Locator:
    """A parent locator entry.

    | offset | size | field |
    |---|---|---|
    | 0 | 4 | platform code |
    | 4 | 4 | data space: sectors by the specification, bytes in Windows' files; not used |
    | 8 | 4 | data length in bytes |
    | 12 | 4 | reserved |
    | 16 | 8 | data offset: of the path in the file |
    """

    code: bytes
    length: int
    offset: int


def parse_locators(entries: bytes, file_offset: int) -> list[Locator]:
    """Return the locators that hold a Windows path, relative ones first.

    Args:
        entries: The eight entries of the dynamic header.
        file_offset: Where they lie in the file, for messages.

    Raises:
        InvalidImage: A path is empty, of odd length or too long.
    """
    found = []
    for index, (code, _, length, _, offset) in enumerate(_ENTRY.iter_unpack(entries)):
        if code not in (RELATIVE, ABSOLUTE):
            continue
        if not 0 < length <= _MAX_PATH_BYTES or length % 2:
            raise InvalidImage(
                f"VHD parent locator {index} has {length} bytes, expected an even number up to"
                f" {_MAX_PATH_BYTES}",
                offset=file_offset + index * _ENTRY.size,
            )
        found.append(Locator(code, length, offset))
    return sorted(found, key=lambda locator: locator.code != RELATIVE)


def parse_path(data: bytes, file_offset: int) -> str:
    """Decode the path of a locator; it may be padded with NULs."""
    return _decode(data, "utf-16-le", file_offset).rstrip("\0")


def parse_name(field: bytes, file_offset: int) -> str:
    """Decode the header's parent name, which ends at the first NUL; "" if there is none."""
    units = [field[at : at + 2] for at in range(0, len(field), 2)]
    end = units.index(b"\0\0") if b"\0\0" in units else len(units)
    return _decode(field[: end * 2], "utf-16-be", file_offset)


def _decode(data: bytes, encoding: str, file_offset: int) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        raise InvalidImage(
            f"the parent's name at file offset {file_offset} is no UTF-16: {err.reason}",
            offset=file_offset,
        ) from err
