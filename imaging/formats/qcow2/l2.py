"""What an L2 table of a qcow2 says, with 8 byte entries or with 16 byte ones for subclusters; reads no file.

"Cluster mapping" and "Extended L2 Entries" of the specification. An `array("Q")` holds one table; places that only
the file can judge are listed (`claims`) and not checked here.
"""

from array import array  # noqa: TC003  (one import for all of its uses)
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from imaging.errors import InvalidImage
from imaging.formats.qcow2.layout import (
    ALL_ZEROS,
    COMPRESSED,
    COPIED,
    L2_RESERVED,
    OFFSET_MASK,
    SUBCLUSTERS,
    Header,
    parse_compressed,
)

_ALL = (1 << SUBCLUSTERS) - 1
_STATE = 1 << SUBCLUSTERS | 1
"""The two bits of the first subcluster in a bitmap: reads as zeros, is allocated."""


class Source(Enum):
    """Where the bytes of a range are; ABSENT is the backing file's, if there is one."""

    STORED = "stored"
    COMPRESSED = "compressed"
    ZERO = "zero"
    ABSENT = "absent"


_WHOLE = {_ALL: Source.STORED, _ALL << SUBCLUSTERS: Source.ZERO, 0: Source.ABSENT}
"""Bitmaps of clusters whose subclusters are all alike."""


class Run(NamedTuple):
    """A range of the disk whose bytes come from one place.

    Attributes:
        length: Bytes, at least one.
        source: Of all of them.
        place: STORED: file offset of the first byte; COMPRESSED: the L2 entry; else meaningless.
    """

    length: int
    source: Source
    place: int = 0


class Claim(NamedTuple):
    """A range of the file that an L2 table uses: whole clusters from `entry` on, or one compressed cluster."""

    entry: int
    offset: int
    length: int
    is_compressed: bool = False


class L2Entries:
    """Tables with an entry of 8 bytes for each cluster."""

    words = 1

    def __init__(self, header: Header) -> None:
        self._bits = header.cluster_bits
        self._cluster = header.cluster_size
        self._has_data_file = header.has_data_file
        # Version 2 has no such flag, and with subclusters the bitmap says it.
        has_flag = header.version > 2 and not header.is_extended
        self._reserved = L2_RESERVED | (0 if has_flag else ALL_ZEROS)

    def run(self, table: "array[int]", index: int, limit: int, inside: int) -> Run:
        """Describe at most `limit` clusters from `index` on, without the first `inside` bytes."""
        entry, end, stop = table[index], index + 1, index + limit
        source = _source(entry)
        if source is Source.STORED:
            while end < stop and table[end] == table[end - 1] + self._cluster:
                end += 1
        elif source is not Source.COMPRESSED:
            while end < stop and _source(table[end]) is source:
                end += 1
        place = entry if source is Source.COMPRESSED else (entry & OFFSET_MASK) + inside
        return Run((end - index << self._bits) - inside, source, place)

    def claims(self, table: "array[int]") -> Iterator[Claim]:
        """List what the table uses, neighbours as one.

        Raises:
            InvalidImage: An entry breaks the rules by itself.
        """
        first, begin, expected = 0, 0, -1
        for index, entry in enumerate(table):
            if entry == expected:
                expected += self._cluster
                continue
            if expected >= 0:
                yield Claim(first, begin & OFFSET_MASK, expected - begin)
                expected = -1
            if entry & COMPRESSED:
                yield self._compressed_claim(index, entry)
            elif entry:
                self._require_entry(index, entry)
                if not entry & ALL_ZEROS:
                    first, begin, expected = index, entry, entry + self._cluster
        if expected >= 0:
            yield Claim(first, begin & OFFSET_MASK, expected - begin)

    def _require_entry(self, index: int, entry: int) -> None:
        """Check a standard entry that is not 0; bit 63 with offset 0 is a place in a data file only."""
        offset = entry & OFFSET_MASK
        is_placed = offset or entry & ALL_ZEROS or (entry & COPIED and self._has_data_file)
        if entry & self._reserved or offset % self._cluster or not is_placed:
            raise _refusal(index, entry, f"a multiple of {self._cluster} without reserved bits")

    def _compressed_claim(self, index: int, entry: int) -> Claim:
        if self._has_data_file:
            raise _refusal(index, entry, "no compressed cluster in an image with a data file")
        place = parse_compressed(entry, self._bits)
        return Claim(index, place.offset, place.length, is_compressed=True)


class ExtendedL2Entries(L2Entries):
    """Tables with an entry of 16 bytes: as above, and a bitmap of the cluster's 32 subclusters."""

    words = 2

    def run(self, table: "array[int]", index: int, limit: int, inside: int) -> Run:
        """Describe subclusters that are alike; whole clusters that are alike are one run too."""
        entry, bitmap = table[2 * index], table[2 * index + 1]
        if entry & COMPRESSED:
            return Run(self._cluster - inside, Source.COMPRESSED, entry)
        place = (entry & OFFSET_MASK) + inside
        source = _WHOLE.get(bitmap)
        if source is None:
            return self._part(bitmap, inside, place)
        end, step = index + 1, self._cluster if source is Source.STORED else None
        while end < index + limit and _continues(table, 2 * end, step):
            end += 1
        return Run((end - index << self._bits) - inside, source, place)

    def claims(self, table: "array[int]") -> Iterator[Claim]:
        """List what the table uses, cluster by cluster."""
        for index in range(len(table) // 2):
            entry, bitmap = table[2 * index], table[2 * index + 1]
            if not entry and not bitmap & _ALL:
                continue
            if bitmap & bitmap >> SUBCLUSTERS & _ALL or (entry & COMPRESSED and bitmap):
                raise _refusal(index, entry, f"another subcluster bitmap than {bitmap:#018x}")
            if entry & COMPRESSED:
                yield self._compressed_claim(index, entry)
            elif bitmap & _ALL:
                self._require_entry(index, entry)
                yield Claim(index, entry & OFFSET_MASK, self._cluster)
            elif entry & self._reserved:
                raise _refusal(index, entry, "an entry without reserved bits")

    def _part(self, bitmap: int, inside: int, place: int) -> Run:
        """Describe the subclusters like the one at `inside`, to the cluster's end at most."""
        size = self._cluster // SUBCLUSTERS
        first = inside // size
        state, end = bitmap >> first & _STATE, first + 1
        while end < SUBCLUSTERS and bitmap >> end & _STATE == state:
            end += 1
        source = {0: Source.ABSENT, 1: Source.STORED}.get(state, Source.ZERO)
        return Run(end * size - inside, source, place)


def _source(entry: int) -> Source:
    if entry & COMPRESSED:
        return Source.COMPRESSED
    if entry & ALL_ZEROS:
        return Source.ZERO
    return Source.STORED if entry & (OFFSET_MASK | COPIED) else Source.ABSENT


def _continues(table: "array[int]", at: int, step: int | None) -> bool:
    """Tell whether the entry at `at` goes on as the one before it: same bitmap, and `step` bytes on in the file."""
    if table[at + 1] != table[at - 1] or (table[at] | table[at - 2]) & COMPRESSED:
        return False
    return step is None or table[at] == table[at - 2] + step


def _refusal(index: int, entry: int, expected: str) -> InvalidImage:
    return InvalidImage(
        f"entry {index} of the L2 table is {entry:#018x}, expected {expected}",
        entry=index,
        found=entry,
    )
