"""The two levels of tables of a qcow2: read, checked, cached, looked up; reads no byte of the disk.

The L1 table is read and checked when the image is opened: every L2 table lies in the file, aligned, and on nothing
else. L2 tables are read when they are needed, because those of a big disk are as long as a small one: a lie in an L2
table is an `InvalidImage` of the first read (or listing of extents) that meets the table, before any of its entries
is used. Two guest clusters may share a host cluster (a refcount above 1): that is no damage, and not looked for.
"""

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

from imaging.device import BlockDevice
from imaging.errors import BlockOverlap, InvalidImage, Truncated
from imaging.formats.qcow2.l2 import Claim, ExtendedL2Entries, L2Entries, Run, Source
from imaging.formats.qcow2.layout import L1_RESERVED, OFFSET_MASK, Header
from imaging.formats.spans import FileRange, require_apart
from imaging.units import MiB, round_up
from imaging.words import read_words

_PAGE_ENTRIES = 1 << 14
"""L1 entries read at a time (128 KiB)."""
_CACHE_SIZE = 4 * MiB
_MIN_CACHED, _MAX_CACHED = 4, 512
"""L2 tables kept: 4 MiB of them, 32 GiB of disk where clusters have 64 KiB; but 4 for readers side by side."""


class ClusterTables:
    """Where the clusters are. May be used from several threads.

    Memory: 8 bytes for each L1 entry (at most 32 MiB) but none for stretches of 16384 that are empty, 8 bytes for
    each L2 table, and the L2 tables that are kept.
    """

    def __init__(self, file: BlockDevice, header: Header, *, data_size: int) -> None:
        """Read and check the L1 table.

        Args:
            file: The image file.
            header: Of the same file.
            data_size: Bytes of the file that holds the clusters: the image file, or its data file.

        Raises:
            InvalidImage: An L1 entry breaks the rules.
            Truncated, BlockOverlap: A table is not where it can be.
        """
        self._file = file
        self._header = header
        self._cluster = header.cluster_size
        self._bits = header.cluster_bits
        self._entries = 1 << header.table_bits
        self._l2 = ExtendedL2Entries(header) if header.is_extended else L2Entries(header)
        self._data_size = data_size
        self._reserved = require_apart(_reserved(header), file.size)
        needed = header.l1_needed
        self._pages = [self._read_page(first) for first in range(0, needed, _PAGE_ENTRIES)]
        self._l2_offsets = self._require_tables()
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, array[int]] = OrderedDict()
        self._room = min(max(_CACHE_SIZE >> self._bits, _MIN_CACHED), _MAX_CACHED)

    def lookup(self, offset: int, length: int) -> Run:
        """Describe bytes of the disk from `offset` on that are alike, at most `length` of them.

        Raises:
            InvalidImage: The L2 table that covers them breaks the rules.
        """
        number, index = divmod(offset >> self._bits, self._entries)
        page = self._pages[number // _PAGE_ENTRIES]
        at = 0 if page is None else page[number % _PAGE_ENTRIES] & OFFSET_MASK
        if not at:
            found = Run(self._absent(number, offset + length) - offset, Source.ABSENT)
        else:
            inside = offset & (self._cluster - 1)
            limit = min(-(-(inside + length) >> self._bits), self._entries - index)
            found = self._l2.run(self._table(number, at), index, limit, inside)
        return found if found.length <= length else found._replace(length=length)

    def present(self) -> Iterator[int]:
        """Yield the number of each L1 entry that has an L2 table."""
        for number, page in enumerate(self._pages):
            for entry, value in enumerate(page or (), number * _PAGE_ENTRIES):
                if value:
                    yield entry

    def require(self, number: int) -> None:
        """Read and check the L2 table of an L1 entry that has one.

        Raises:
            InvalidImage: The table breaks the rules.
        """
        page = self._pages[number // _PAGE_ENTRIES]
        if page is not None:
            self._table(number, page[number % _PAGE_ENTRIES] & OFFSET_MASK)

    def _absent(self, number: int, end: int) -> int:
        """Return the offset in the disk where the first L2 table from `number` on begins, at least `end` if none."""
        covered = self._entries << self._bits
        while number * covered < end:
            page, index = self._pages[number // _PAGE_ENTRIES], number % _PAGE_ENTRIES
            if page is None:
                number += _PAGE_ENTRIES - index
            elif page[index]:
                break
            else:
                number += 1
        return number * covered

    # --- level 1

    def _read_page(self, first: int) -> "array[int] | None":
        """Read neighbouring L1 entries; None if all are empty."""
        count = min(_PAGE_ENTRIES, self._header.l1_needed - first)
        page = read_words(self._file, self._header.l1_offset + first * 8, count, "Q", "big")
        return page if any(page) else None

    def _require_tables(self) -> "array[int]":
        """Check every L1 entry; return the file offsets of the L2 tables, sorted."""
        found = array("Q")
        for number, page in enumerate(self._pages):
            for entry, value in enumerate(page or (), number * _PAGE_ENTRIES):
                if value:
                    found.append(self._l2_offset(entry, value))
        found = array("Q", sorted(found))
        for left, right in pairwise(found):
            if left == right:
                raise BlockOverlap(
                    f"two L1 entries share the L2 table at file offset {left}", offset=left
                )
        return found

    def _l2_offset(self, number: int, value: int) -> int:
        offset, place = value & OFFSET_MASK, self._header.l1_offset + number * 8
        if value & L1_RESERVED or offset % self._cluster or not offset:
            raise InvalidImage(
                f"L1 entry {number} is {value:#018x}, expected a positive multiple of"
                f" {self._cluster} without reserved bits",
                offset=place,
            )
        what = f"the L2 table of L1 entry {number}"
        if offset + self._cluster > self._file.size:
            raise _truncated(what, offset, self._cluster, self._file.size)
        self._require_free(what, offset, self._cluster)
        return offset

    # --- level 2

    def _table(self, number: int, offset: int) -> "array[int]":
        """Return an L2 table that was checked."""
        with self._lock:
            table = self._kept.get(number)
            if table is not None:
                self._kept.move_to_end(number)
                return table
        # Two threads may read one table at the same time: cheaper than to wait for a share under a lock.
        table = read_words(self._file, offset, self._cluster // 8, "Q", "big")
        try:
            for claim in self._l2.claims(table):
                self._require_claim(claim, number)
        except InvalidImage as err:
            at = offset + 8 * self._l2.words * err.fields.get("entry", 0)
            message = f"the L2 table at file offset {offset}: {err}"
            raise type(err)(message, **{"offset": at, **err.fields}) from err
        with self._lock:
            self._kept[number] = table
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return table

    def _require_claim(self, claim: Claim, number: int) -> None:
        """Check that what an L2 table uses is in the file and no metadata.

        A file may end inside its last cluster, whose rest reads as zeros; whatever begins behind that is damage.
        """
        index, offset, length, is_compressed = claim
        what = f"{'compressed ' if is_compressed else ''}cluster {number * self._entries + index}"
        end = self._data_size if is_compressed else round_up(self._data_size, self._cluster)
        if offset + (1 if is_compressed else length) > end:
            raise _truncated(what, offset, length, self._data_size)
        if not self._header.has_data_file:
            self._require_free(what, offset, length)
            self._require_no_table(what, offset, length)
        elif offset != (number * self._entries + index) << self._bits:
            raise InvalidImage(
                f"{what} lies at {offset} of the data file, expected the same place as in the disk",
                entry=index,
            )

    def _require_free(self, what: str, offset: int, length: int) -> None:
        for item in self._reserved:
            if item.offset < offset + length and offset < item.end:
                raise _overlap(what, offset, item)

    def _require_no_table(self, what: str, offset: int, length: int) -> None:
        index = bisect_right(self._l2_offsets, offset - self._cluster)
        if index < len(self._l2_offsets) and self._l2_offsets[index] < offset + length:
            table = FileRange(self._l2_offsets[index], self._cluster, "an L2 table")
            raise _overlap(what, offset, table)


def _reserved(header: Header) -> list[FileRange]:
    """Return the metadata that no L2 table and no cluster may touch."""
    found = [
        FileRange(0, header.cluster_size, "the header"),
        FileRange(header.l1_offset, header.l1_entries * 8, "the L1 table"),
    ]
    if header.refcount_clusters:
        size = header.refcount_clusters << header.cluster_bits
        found.append(FileRange(header.refcount_offset, size, "the refcount table"))
    return found


def _truncated(what: str, offset: int, length: int, file_size: int) -> Truncated:
    return Truncated(
        f"{what} ends at file offset {offset + length}, but the file has {file_size} bytes",
        offset=offset,
        file_size=file_size,
    )


def _overlap(what: str, offset: int, item: FileRange) -> BlockOverlap:
    return BlockOverlap(
        f"{what} at file offset {offset} overlaps {item.name} ({item.offset} to {item.end})",
        offset=offset,
    )
