"""A gzip file made of pieces that several threads compress: one member a piece, or one member in all (RFC 1952).

One member in all is what pigz writes: each piece is deflated alone and ends on a byte border (RFC 1951, an empty stored
block), and the CRC of the whole follows from those of the pieces. Readers that stop after the first member read it
whole. Writes no file.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from isal import isal_zlib

from imaging.crc import CRC32, combine
from imaging.deflate import Compress, gzip_compressor

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""No name, no time, unknown system: the same bytes give the same file."""
_END = b"\x03\0"
"""A last block with nothing in it."""
_ONE_MEMBER_LEVEL = 2


class Piece(NamedTuple):
    """One compressed piece: its bytes, and CRC-32 and length of what is inside."""

    data: bytes
    crc: int
    length: int


@dataclass(slots=True)
class GzipState:
    """How far a file is: CRC-32 and length of everything inside so far."""

    crc: int = 0
    length: int = 0


class Gzip(Protocol):
    """One way of joining pieces."""

    begin: bytes
    """What comes before the first piece."""

    def pack(self, data: bytes) -> Piece:
        """Compress one piece; from any thread."""
        ...

    def end(self, state: GzipState) -> bytes:
        """Return what comes behind the last piece."""
        ...


class ManyMembers:
    """Each piece is a gzip file of its own."""

    begin = b""

    def __init__(self, level: str) -> None:
        """Compress with one of `imaging.deflate.LEVELS`."""
        self._compress: Compress = gzip_compressor(level)

    def pack(self, data: bytes) -> Piece:
        """See `Gzip`."""
        return Piece(self._compress(data), 0, len(data))

    def end(self, state: GzipState) -> bytes:  # noqa: ARG002 - each member has its own end
        """See `Gzip`."""
        return b""


class OneMember:
    """All pieces are one gzip member."""

    begin = _HEADER

    def pack(self, data: bytes) -> Piece:
        """See `Gzip`."""
        squeezer = isal_zlib.compressobj(_ONE_MEMBER_LEVEL, isal_zlib.DEFLATED, -15)
        packed = squeezer.compress(data) + squeezer.flush(isal_zlib.Z_SYNC_FLUSH)
        return Piece(packed, isal_zlib.crc32(data), len(data))

    def end(self, state: GzipState) -> bytes:
        """See `Gzip`."""
        return _END + struct.pack("<II", state.crc, state.length & 0xFFFFFFFF)


def joined(state: GzipState, piece: Piece) -> GzipState:
    """Return the state with one more piece."""
    crc = combine(CRC32, state.crc, piece.crc, piece.length)
    return GzipState(crc, state.length + piece.length)
