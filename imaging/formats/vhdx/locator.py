"""The bytes by which a differencing VHDX names its parent: the metadata item "parent locator"; opens no file.

Implements [MS-VHDX] 2.6.2.6. Numbers and UTF-16 text are little-endian.

| offset | size | field |
|---|---|---|
| 0 | 16 | locator type: a GUID, only that of VHDX parents is known |
| 18 | 2 | key value count |
| 20 | 12 each | entries: key offset (4), value offset (4), key length (2), value length (2) |

Offsets count from the item's first byte, lengths are bytes, no text ends in NUL.
"""

import struct
import uuid
from dataclasses import dataclass

from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.reference import Reference

LOCATOR_TYPE = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le

_LINKAGES = ("parent_linkage", "parent_linkage2")
_PATHS = ("relative_path", "volume_path", "absolute_win32_path")
"""In the order in which they count (2.6.2.6.3)."""
_MAX_ENTRIES = 64
"""Hyper-V writes five. Entries may share their text, so the count is what bounds the work."""

_HEAD = struct.Struct("<16sHH")
_ENTRY = struct.Struct("<IIHH")


@dataclass(frozen=True, slots=True)
class ParentLocator:
    """What the item says.

    Attributes:
        linkages: Data write GUIDs, one of which the parent must have.
        references: Its paths, in the order in which they count.
    """

    linkages: tuple[uuid.UUID, ...]
    references: tuple[Reference, ...]


def parse_parent_locator(item: bytes, file_offset: int) -> ParentLocator:
    """Parse the item that lies at `file_offset`.

    Raises:
        UnsupportedImage: The parent is no VHDX.
        InvalidImage: A length, a text or the linkage breaks the rules.
    """
    if len(item) < _HEAD.size:
        raise InvalidImage(
            f"the VHDX parent locator has {len(item)} bytes, expected at least {_HEAD.size}",
            offset=file_offset,
        )
    kind, _, count = _HEAD.unpack_from(item)
    if kind != LOCATOR_TYPE:
        raise UnsupportedImage(
            f"the VHDX parent locator is of the unknown type {uuid.UUID(bytes_le=kind)}",
            offset=file_offset,
        )
    if count > _MAX_ENTRIES or _HEAD.size + count * _ENTRY.size > len(item):
        raise InvalidImage(
            f"the VHDX parent locator has {count} entries in {len(item)} bytes, expected at most"
            f" {_MAX_ENTRIES}",
            offset=file_offset + 18,
        )
    values = _values(item, count, file_offset)
    linkages = tuple(_linkage(*values[key]) for key in _LINKAGES if key in values)
    if "parent_linkage" not in values:
        raise InvalidImage("the VHDX parent locator has no parent_linkage", offset=file_offset)
    references = tuple(
        Reference(*values[key], relative=key == "relative_path") for key in _PATHS if key in values
    )
    return ParentLocator(linkages, references)


def build_parent_locator(data_write_guid: bytes, name: str) -> bytes:
    """Build the item that names a parent beside its child: no path that only one machine knows (2.6.2.6.3).

    Args:
        data_write_guid: Of the parent's current header.
        name: The parent's file.
    """
    linkage = str(uuid.UUID(bytes_le=data_write_guid))  # in lower case: libvhdi reads no other
    values = (("parent_linkage", f"{{{linkage}}}"), ("relative_path", f".\\{name}"))
    pairs = [(key.encode("utf-16-le"), value.encode("utf-16-le")) for key, value in values]
    head, texts = _HEAD.pack(LOCATOR_TYPE, 0, len(pairs)), b""
    start = _HEAD.size + len(pairs) * _ENTRY.size
    for key, value in pairs:
        at = start + len(texts)
        head += _ENTRY.pack(at, at + len(key), len(key), len(value))
        texts += key + value
    return head + texts


def _values(item: bytes, count: int, file_offset: int) -> dict[str, tuple[str, int]]:
    """Return key -> (value, its file offset)."""
    values: dict[str, tuple[str, int]] = {}
    entries = _ENTRY.iter_unpack(item[_HEAD.size : _HEAD.size + count * _ENTRY.size])
    for key_at, value_at, key_length, value_length in entries:
        key = _text(item, key_at, key_length, file_offset)
        if key in values:
            raise InvalidImage(
                f"the VHDX parent locator has the key {key[:64]!r} twice",
                offset=file_offset + key_at,
            )
        values[key] = (_text(item, value_at, value_length, file_offset), file_offset + value_at)
    return values


def _text(item: bytes, at: int, length: int, file_offset: int) -> str:
    if length == 0 or length % 2 or at + length > len(item):
        raise InvalidImage(
            f"a text of the VHDX parent locator has {length} bytes at {at} of {len(item)}",
            offset=file_offset + at,
        )
    try:
        return item[at : at + length].decode("utf-16-le")
    except UnicodeDecodeError as err:
        raise InvalidImage(
            f"a text of the VHDX parent locator is no UTF-16: {err.reason}",
            offset=file_offset + at,
        ) from err


def _linkage(text: str, file_offset: int) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as err:
        raise InvalidImage(
            f"the VHDX parent linkage is {text[:64]!r}, expected a GUID", offset=file_offset
        ) from err
