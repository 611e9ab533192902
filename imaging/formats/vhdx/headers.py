"""The two headers of a VHDX ([MS-VHDX] 2.2.2): which one counts, and how they are changed."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from imaging.device import BlockDevice, ResizableDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.vhdx.layout import (
    HEADER_OFFSETS,
    HEADER_SIZE,
    Header,
    build_header,
    parse_header,
)

_T = TypeVar("_T")
_MAX_SEQUENCE = (1 << 64) - (1 << 32)
"""What leaves room for four thousand million changes of the headers; no writer comes near it."""


def read_copies(
    file: BlockDevice, offsets: Sequence[int], length: int, parse: Callable[[bytes, int], _T]
) -> tuple[dict[int, _T], tuple[str, ...]]:
    """Parse both copies of a structure; return the sound ones by offset and warnings, or raise if none is."""
    sound: dict[int, _T] = {}
    errors: list[InvalidImage] = []
    for offset in offsets:
        try:
            sound[offset] = parse(read_bytes(file, offset, length), offset)
        except InvalidImage as err:
            errors.append(err)
    if not sound:
        raise errors[0]
    return sound, tuple(f"{err}; the other copy was used" for err in errors)


def read_header(file: BlockDevice) -> tuple[Header, int, tuple[str, ...]]:
    """Return the current header, where it lies, and warnings: of the sound ones, that with the higher number counts.

    Raises:
        InvalidImage: None is sound, or both have one number and differ.
    """
    headers, warnings = read_copies(file, HEADER_OFFSETS, HEADER_SIZE, parse_header)
    first, *others = headers.values()
    for other in others:
        # disk2vhd writes the same header twice; the specification calls that corrupt.
        if other.sequence == first.sequence and other != first:
            raise InvalidImage(
                f"both VHDX headers have sequence number {first.sequence} but differ",
                offset=HEADER_OFFSETS[1],
            )
    offset, header = max(headers.items(), key=lambda item: item[1].sequence)
    return header, offset, warnings


class Headers:
    """Changes the headers of a file by the rules of 2.2.2.1: the copy that does not count is written, made durable,
    and counts from then on. Then the other one is written too, so that no copy is older than the last change.

    Attributes:
        current: What counts.
    """

    def __init__(self, file: ResizableDevice) -> None:
        """Read them; each object gives the file a new file write GUID at its first change."""
        self._file = file
        self.current, self._offset, _ = read_header(file)
        if self.current.sequence > _MAX_SEQUENCE:
            raise InvalidImage(
                f"the VHDX header has sequence number {self.current.sequence}: no higher ones are left to write",
                offset=self._offset + 8,
            )
        self._file_write_guid = uuid.uuid4().bytes_le

    def put(self, *, log_guid: bytes | None = None, data_write_guid: bytes | None = None) -> None:
        """Change fields, durably when this returns; None leaves one as it is."""
        for _ in HEADER_OFFSETS:
            current = self.current
            changed = replace(
                current,
                sequence=current.sequence + 1,
                log_guid=current.log_guid if log_guid is None else log_guid,
                data_write_guid=current.data_write_guid
                if data_write_guid is None
                else data_write_guid,
            )
            other = HEADER_OFFSETS[self._offset == HEADER_OFFSETS[0]]
            block = build_header(changed, file_write_guid=self._file_write_guid)
            self._file.write(other, block)
            self._file.flush()
            self.current, self._offset = changed, other
