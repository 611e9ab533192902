"""Check pieces of a stream-optimized VMDK that was written somewhere against the digests of the disk.

A piece stands for whole units, as `FlowingVmdkSink` wrote them. Nothing is trusted: each grain is inflated, each table,
the directory and the footer are built anew and compared. What a table has of the pieces before comes from the states.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from uuid import UUID

from imaging.convert.archive import ArchivePiece, Differs
from imaging.convert.vmdk_stream import FlowState, beginning, header_of
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder, block_count
from imaging.errors import InvalidImage
from imaging.formats.vmdk import build
from imaging.formats.vmdk.grain import GrainDecoder
from imaging.formats.vmdk.layout import (
    MARKER_SIZE,
    TABLE_ENTRIES,
    MarkerType,
    build_header,
    build_marker,
    parse_marker,
)
from imaging.units import SECTOR_SIZE, round_up

NAME = "disk.vmdk"


class VmdkCheck:
    """The stream of one disk as it has to be. Thread-safe once made; memory: a digest block a call."""

    def __init__(self, size: int, states: Sequence[tuple[int, ...]], digest: DigestBuilder) -> None:
        """Compare with a complete `digest` of the source.

        Args:
            size: Bytes of the disk in the stream.
            states: Of all parts, ascending, as the sink gave them.
            digest: Of the source.
        """
        self._size = size
        self._digest = digest
        self._decoder = GrainDecoder(round_up(size, build.GRAIN_SIZE), build.GRAIN_SIZE)
        self._directory = array("I", bytes(4 * -(-size // build.TABLE_SPAN)))
        self._open: dict[int, dict[int, int]] = {}
        """Sector at which a piece begins -> entries of the table that is open there."""
        for state in map(FlowState.read, states):
            self._open[state.sector] = state.open_table
            for number, place in state.ended.items():
                self._directory[number] = place

    def check(self, piece: ArchivePiece, data: bytes) -> int:
        """See PieceCheck."""
        walk = _Walk(data, piece.file_offset)
        table = dict(self._open.get(walk.sector, {})) if not piece.is_first else {}
        if piece.is_first:
            walk.expect(beginning(self._size, NAME, UUID(int=0)), "another header")
        compared = 0
        first, end = piece.start // build.TABLE_SPAN, -(-piece.end // build.TABLE_SPAN)
        for number in range(first, min(end, len(self._directory))):
            compared += self._check_grains(number, walk, piece, table)
            ends = (number + 1) * build.TABLE_SPAN <= piece.end or piece.is_last
            if ends and table:
                self._check_table(number, walk, table)
            if ends:
                table = {}
        if piece.is_last:
            self._check_end(walk)
        if walk.at != len(data):
            raise Differs("more bytes than the disk has")
        begin, limit = piece.start, min(piece.end, self._digest.virtual_size)
        blocks = block_count(max(0, limit - begin))
        found = self._digest.data_blocks(begin // DIGEST_BLOCK, blocks) if blocks else ()
        expected = sum(1 for _ in found)
        if compared != expected:
            raise Differs(f"{compared} blocks of data, the source has {expected}")
        return compared

    def _check_grains(
        self, number: int, walk: "_Walk", piece: ArchivePiece, table: dict[int, int]
    ) -> int:
        """Compare the blocks of a piece that one table names; return how many, and add the grains to the table."""
        compared, block, filled = 0, -1, bytearray(DIGEST_BLOCK)
        last = -1
        for grain, place, content in walk.grains(self._decoder):
            at = grain * build.GRAIN_SIZE
            if (
                grain // TABLE_ENTRIES != number
                or grain <= last
                or not piece.start <= at < piece.end
            ):
                raise Differs(f"grain {grain} in another place")
            last = grain
            table[grain] = place
            if at // DIGEST_BLOCK != block:
                compared += self._compare(block, filled)
                block, filled = at // DIGEST_BLOCK, bytearray(DIGEST_BLOCK)
            filled[at % DIGEST_BLOCK : at % DIGEST_BLOCK + len(content)] = content
        return compared + self._compare(block, filled)

    def _check_table(self, number: int, walk: "_Walk", grains: dict[int, int]) -> None:
        table = array("I", bytes(4 * TABLE_ENTRIES))
        for grain, place in grains.items():
            table[grain % TABLE_ENTRIES] = place
        walk.expect_marked(MarkerType.GRAIN_TABLE, build.build_table(table), "another grain table")
        if walk.sector - build.TABLE_SECTORS != self._directory[number]:
            raise Differs(f"grain table {number} in another place")

    def _compare(self, block: int, filled: bytearray) -> int:
        if block < 0:
            return 0
        if block >= block_count(self._digest.virtual_size):
            raise Differs("bytes behind the end of the source", block)
        expected = self._digest.blocks(block, 1)
        if hashlib.sha256(filled).digest() != expected:
            raise Differs("other bytes than the source", block)
        return int(expected != ZERO_BLOCK_DIGEST)

    def _check_end(self, walk: "_Walk") -> None:
        table = build.build_table(self._directory)
        walk.expect_marked(MarkerType.GRAIN_DIRECTORY, table, "another grain directory")
        directory = walk.sector - len(table) // SECTOR_SIZE
        footer = build_header(header_of(self._size, directory))
        walk.expect_marked(MarkerType.FOOTER, footer, "another footer")
        walk.expect(build_marker(MarkerType.END_OF_STREAM, 0), "another end")


class _Walk:
    """A position in one piece."""

    def __init__(self, data: bytes, file_offset: int) -> None:
        self._data = memoryview(data)
        self._offset = file_offset
        self.at = 0

    @property
    def sector(self) -> int:
        """Of the archive."""
        return (self._offset + self.at) // SECTOR_SIZE

    def expect(self, content: bytes, otherwise: str) -> None:
        """Step over bytes that have to be these."""
        if self._data[self.at : self.at + len(content)] != content:
            raise Differs(otherwise)
        self.at += len(content)

    def expect_marked(self, kind: MarkerType, content: bytes, otherwise: str) -> None:
        """Step over a marker and what it announces."""
        self.expect(build_marker(kind, len(content) // SECTOR_SIZE) + content, otherwise)

    def grains(self, decoder: GrainDecoder) -> Iterator[tuple[int, int, bytes | bytearray]]:
        """Yield (number, sector in the archive, content) of each grain up to the next other marker."""
        while len(self._data) - self.at >= SECTOR_SIZE:
            marker = parse_marker(self._data, self.at)
            if not marker.size:
                return
            grain, at = marker.value // build.GRAIN_SECTORS, self.at
            try:
                length = decoder.length(marker, grain, self._offset + at)
                end = at + round_up(length, SECTOR_SIZE)
                if end > len(self._data) or any(self._data[at + length : end]):
                    raise Differs(f"grain {grain} that does not end where it should")
                body = self._data[at + MARKER_SIZE : at + length]
                content = decoder.inflate(body, grain, self._offset + at)
            except InvalidImage as err:
                raise Differs(str(err), grain * build.GRAIN_SIZE // DIGEST_BLOCK) from err
            place, self.at = self.sector, end
            yield grain, place, content
