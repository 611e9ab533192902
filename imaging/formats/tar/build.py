"""The bytes of a tar archive with one sparse file in it, as GNU tar's `--format=oldgnu -S` makes them; writes no file.

Implements "GNU tar: an archiver tool", "Basic Tar Format" (the type `S` of old GNU tar). Numbers are octal text; those
too large for that are big-endian with the top bit set.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from imaging.units import SECTOR_SIZE

_HEADER = struct.Struct("100s8s8s8s12s12s8ss100s8s121x96ss12s17x")
_EXTENSION = struct.Struct("504ss7x")
_CHECKSUM_AT = 148
_IN_HEADER = 4
_IN_EXTENSION = 21
_RECORD_SIZE = 20 * SECTOR_SIZE
"""An archive of GNU tar is a multiple of this."""
_MAX_OCTAL = 8**11


def build_sparse_header(
    name: str, ranges: Iterable[tuple[int, int]], count: int, *, stored: int, real_size: int
) -> Iterator[bytes]:
    """Yield the header of a sparse file and the extensions that its map needs, 512 bytes each.

    | offset | size | field |
    |---|---|---|
    | 0 | 100 | name |
    | 100, 108, 116 | 8 | mode, user, group |
    | 124 | 12 | bytes of data that follow |
    | 136 | 12 | modification time: 1970, so that the same disk gives the same archive |
    | 148 | 8 | checksum: sum of all bytes, its own taken for spaces |
    | 156 | 1 | type `S` |
    | 257 | 8 | magic `ustar`, two spaces, NUL |
    | 386 | 4 x 24 | map: offset (12), length (12) |
    | 482 | 1 | 1: an extension follows; it has 21 entries and the same field at 504 |
    | 483 | 12 | size of the file |

    Args:
        name: ASCII, up to 99 characters.
        ranges: (offset, length) of the data, in order, multiples of 512.
        count: How many ranges there are.
        stored: The sum of their lengths.
        real_size: Bytes of the file.
    """
    # The last entry is empty: it tells readers of the map alone that the file ends in a hole.
    entries = chain(ranges, [(real_size, 0)])
    count += 1 - _IN_HEADER
    map_in_header = _build_map(entries, _IN_HEADER)
    header = _HEADER.pack(
        *(name.encode("ascii"), b"0000644", b"0000000", b"0000000", _number(stored), _number(0)),
        *(b" " * 8, b"S", b"", b"ustar  ", map_in_header, _flag(count), _number(real_size)),
    )
    yield header[:_CHECKSUM_AT] + b"%06o\0 " % sum(header) + header[_CHECKSUM_AT + 8 :]
    while count > 0:
        count -= _IN_EXTENSION
        yield _EXTENSION.pack(_build_map(entries, _IN_EXTENSION), _flag(count))


def build_end(length: int) -> bytes:
    """Build the end of an archive that has `length` bytes so far: two empty blocks, and up to a whole record."""
    blocks = 2 * SECTOR_SIZE
    return bytes(blocks + -(length + blocks) % _RECORD_SIZE)


def _build_map(entries: Iterator[tuple[int, int]], limit: int) -> bytes:
    return b"".join(_number(at) + _number(length) for at, length in islice(entries, limit))


def _flag(entries_left: int) -> bytes:
    return b"\1" if entries_left > 0 else b"\0"


def _number(value: int) -> bytes:
    if value < _MAX_OCTAL:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")
