"""The members of a tar archive as devices, read where they lie; extracts nothing and follows no link.

Members are found by name only, so nothing in an archive can name a path of this machine (CVE-2007-4559).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from imaging.device import BlockDevice, read_bytes
from imaging.errors import FileMissing, InvalidImage, ReferenceRefused, Truncated, UnsupportedImage
from imaging.formats.tar.layout import (
    BLOCK_SIZE,
    MAX_PAX_SIZE,
    parse_pax,
    parse_tar_header,
    pax_size,
)
from imaging.offset import OffsetDevice
from imaging.units import round_up

MAX_MEMBERS = 1024
_FILE, _CONTIGUOUS, _DIRECTORY, _PAX, _PAX_GLOBAL = "0", "7", "5", "x", "g"
_LINKS = {"1": "a hard link", "2": "a symbolic link"}


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file of an archive: its name without a leading `./`, and where its bytes are."""

    name: str
    offset: int
    size: int


def tar_members(file: BlockDevice) -> Iterator[TarMember]:
    """Yield the regular files of the archive in their order; every header up to there was checked.

    Raises:
        InvalidImage: A header is damaged, or there are more than MAX_MEMBERS.
        Truncated: A member does not end inside the file, or the archive has no end mark.
        ReferenceRefused: A member is a link.
        UnsupportedImage: A member is none of file, directory and pax header.
    """
    position = 0
    pax: dict[str, str] = {}
    for _ in range(MAX_MEMBERS):
        if position + BLOCK_SIZE > file.size:
            raise _cut(
                "the next tar header, or the end mark,", position, position + BLOCK_SIZE, file.size
            )
        header = parse_tar_header(read_bytes(file, position, BLOCK_SIZE), position)
        if header is None:
            return
        offset = position + BLOCK_SIZE
        name, size = header.name, header.size
        if header.type not in (_PAX, _PAX_GLOBAL):
            name = pax.get("path", name)
            size = pax_size(pax["size"], position) if "size" in pax else size
            pax = {}
        if offset + size > file.size:
            raise _cut(f"the member {name[:100]!r}", offset, offset + size, file.size)
        if header.type == _PAX:
            pax = _read_pax(file, offset, size)
        elif header.type in (_FILE, _CONTIGUOUS):
            yield TarMember(name.removeprefix("./"), offset, size)
        else:
            _require_harmless(header.type, name, position)
        position = offset + round_up(size, BLOCK_SIZE)
    raise InvalidImage(f"the archive has more than {MAX_MEMBERS} members", offset=position)


class TarFolder:
    """The members of an archive as `Siblings`."""

    def __init__(self, file: BlockDevice, members: dict[str, TarMember]) -> None:
        """Offer `members` of the archive in `file`, which stays open."""
        self._file = file
        self._members = members

    def open(self, name: str) -> OffsetDevice:
        """Open the member of that name; the caller closes it."""
        member = self._members.get(name)
        if member is None:
            raise FileMissing(f"the archive has no member {name!r}", path=name)
        return OffsetDevice(self._file, member.offset, member.size)


def _read_pax(file: BlockDevice, offset: int, size: int) -> dict[str, str]:
    if size > MAX_PAX_SIZE:
        raise InvalidImage(
            f"a pax header of {size} bytes, expected up to {MAX_PAX_SIZE}", offset=offset
        )
    return parse_pax(read_bytes(file, offset, size), offset)


def _require_harmless(kind: str, name: str, offset: int) -> None:
    if kind in (_DIRECTORY, _PAX_GLOBAL):
        return
    if kind in _LINKS:
        raise ReferenceRefused(
            f"the member {name[:100]!r} at file offset {offset} is {_LINKS[kind]}", offset=offset
        )
    raise UnsupportedImage(
        f"the member {name[:100]!r} at file offset {offset} is of type {kind!r}, expected a file",
        offset=offset,
        found=kind,
    )


def _cut(what: str, offset: int, end: int, file_size: int) -> Truncated:
    return Truncated(
        f"{what} ends at file offset {end}, but the file has {file_size} bytes",
        offset=offset,
        file_size=file_size,
    )
