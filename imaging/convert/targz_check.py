"""Check pieces of a tar.gz that was written somewhere: inflate each alone and compare it with the digests of the disk.

A piece is what stands for whole units of the disk, as `TarGzSink` appended them. Nothing is trusted: more, fewer or
other bytes than the map announces are a difference.
"""

import hashlib
import zlib
from collections.abc import Iterator

from imaging.convert.archive import ArchivePiece, Differs
from imaging.convert.targz import SparseMap, headers_of
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder, block_count
from imaging.formats.tar.build import build_end
from imaging.gzipping import OneMember
from imaging.units import MiB

_INFLATED = 1 * MiB
_MEMBER_WBITS, _RAW_WBITS = 31, -15


class TarGzCheck:
    """The archive of one disk as it has to be. Thread-safe once made; memory: the map, and 2 MiB a call."""

    def __init__(
        self, sparse: SparseMap, padded_size: int, digest: DigestBuilder, *, one_member: bool
    ) -> None:
        """Compare with a complete `digest` of the source."""
        self._map = sparse
        self._size = padded_size
        self._digest = digest
        self._one_member = one_member

    def check(self, piece: ArchivePiece, data: bytes) -> int:
        """Compare one piece and return how many digest blocks of it are data.

        Raises:
            Differs: With the first block that is not the source's.
        """
        inflated = self._inflated(piece, data)
        reader = _Reader(inflated)
        header_length = 0
        if piece.is_first:
            for header in headers_of(self._map, self._size):
                header_length += len(header)
                if reader.take(len(header)) != header:
                    raise Differs("another tar header")
        compared = self._compare(piece, reader)
        if piece.is_last:
            stored = sum(length for _, length in self._map)
            length = sum(len(header) for header in headers_of(self._map, self._size)) + stored
            end = build_end(length)
            if reader.take(len(end)) != end:
                raise Differs("another end of the archive")
        if not reader.is_done():
            raise Differs("more bytes than the disk has")
        return compared

    def _compare(self, piece: ArchivePiece, reader: "_Reader") -> int:
        """Put the stored ranges back into their blocks and compare each; what is in no range reads as zeros."""
        compared = 0
        limit = self._digest.virtual_size
        end = min(piece.end, limit)
        for block, ranges in _blocks(self._map, piece.start, piece.end):
            filled = bytearray(DIGEST_BLOCK)
            for at, length in ranges:
                filled[at : at + length] = reader.take(length)
            if block >= block_count(limit):
                if any(filled):
                    raise Differs("bytes behind the end of the source", block)
                continue
            expected = self._digest.blocks(block, 1)
            if hashlib.sha256(filled).digest() != expected:
                raise Differs("other bytes than the source", block)
            compared += expected != ZERO_BLOCK_DIGEST
        first, count = piece.start // DIGEST_BLOCK, block_count(max(0, end - piece.start))
        expected_count = sum(1 for _ in self._digest.data_blocks(first, count)) if count else 0
        if compared != expected_count:
            raise Differs(f"{compared} blocks of data, the source has {expected_count}")
        return compared

    def _inflated(self, piece: ArchivePiece, data: bytes) -> Iterator[bytes]:
        if not self._one_member:
            return _members(data)
        begin = OneMember.begin if piece.is_first else b""
        if not data.startswith(begin):
            raise Differs("no gzip header")
        return _segments(data[len(begin) :], is_last=piece.is_last)


class _Reader:
    """Bytes of a stream, so many at a time."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes; raises Differs if there are fewer."""
        while len(self._buffer) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise Differs("fewer bytes than the disk has")
            self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def is_done(self) -> bool:
        """Whether nothing is left."""
        return not self._buffer and all(not piece for piece in self._pieces)


def _blocks(sparse: SparseMap, start: int, end: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield each digest block that the map touches, with (offset in the block, length) of what is stored of it."""
    block = -1
    ranges: list[tuple[int, int]] = []
    for at, length in sparse.inside(start, end - start):
        offset, stop = start + at, start + at + length
        while offset < stop:
            number = offset // DIGEST_BLOCK
            part = min(stop, (number + 1) * DIGEST_BLOCK) - offset
            if number != block:
                if ranges:
                    yield block, ranges
                block, ranges = number, []
            ranges.append((offset - number * DIGEST_BLOCK, part))
            offset += part
    if ranges:
        yield block, ranges


def _members(data: bytes) -> Iterator[bytes]:
    """Inflate gzip members one after the other."""
    while data:
        inflate = zlib.decompressobj(_MEMBER_WBITS)
        yield from _drained(inflate, data)
        if not inflate.eof:
            raise Differs("a gzip member that does not end")
        data = inflate.unused_data


def _segments(data: bytes, *, is_last: bool) -> Iterator[bytes]:
    """Inflate deflate blocks; only the last piece ends the stream. Its trailer is left to the CRC of the object."""
    inflate = zlib.decompressobj(_RAW_WBITS)
    yield from _drained(inflate, data)
    if inflate.eof != is_last:
        raise Differs("a gzip stream that ends at another place")


def _drained(inflate: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    try:
        piece = inflate.decompress(data, _INFLATED)
        while piece or (inflate.unconsumed_tail and not inflate.eof):
            yield piece
            if inflate.eof:
                return
            piece = inflate.decompress(inflate.unconsumed_tail, _INFLATED)
    except zlib.error as err:
        raise Differs(f"no deflate stream: {err}") from err
