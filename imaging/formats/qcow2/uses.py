"""What uses the clusters of a qcow2: every table and every cluster that one names, with how many name it.

"qcow2" (qemu, docs/interop/qcow2.txt): refcounts count the uses by the header, the refcount structures, the active
state, internal snapshots and bitmaps. Reads tables, no content.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.qcow2.layout import (
    COMPRESSED,
    OFFSET_MASK,
    BitmapDirectory,
    Header,
    parse_compressed,
)
from imaging.formats.spans import FileRange, require_apart
from imaging.units import MiB, round_up
from imaging.words import read_words

if TYPE_CHECKING:
    from array import array

_PAGE_WORDS = 1 << 17
MAX_TABLES = 1 << 20
"""L2 tables of all states; at 64 KiB a cluster they describe 512 TiB. Memory: about 100 bytes each."""
_MAX_SNAPSHOTS = 65536
_MAX_LISTS = 64 * MiB
"""Bytes of all L1 tables of snapshots, and of a list of snapshots or bitmaps: qemu's limits."""
_MIN_EXTRA, _MAX_EXTRA = 16, 1024
"""Bytes of what version 3 says more of a snapshot, and at most: qemu's limit."""
_SNAPSHOT = struct.Struct(">QIHHIIQII")
_BITMAP = struct.Struct(">QIIBBHI")


class TooMany(Exception):
    """Counting would take more memory or time than a check may; says of what there is too much."""


class Use(NamedTuple):
    """A range of the file that `times` tables, entries or structures name."""

    offset: int
    length: int
    times: int = 1


class Tables(NamedTuple):
    """All L2 tables.

    Attributes:
        times: File offset -> how many states (the active one, snapshots) name the table.
        metadata: Everything that is neither an L2 table nor named by one.
    """

    times: Counter[int]
    metadata: list[Use]


def find_tables(file: BlockDevice, header: Header, bitmaps: BitmapDirectory | None) -> Tables:
    """Read the L1 tables of all states, and the lists of what else the file holds.

    Raises:
        InvalidImage: One of them breaks the rules; what counts for the active state was checked at open.
        TooMany: There are more of them than are counted here.
    """
    cluster = header.cluster_size
    length = header.refcount_clusters << header.cluster_bits
    metadata = [
        Use(0, cluster),
        Use(header.refcount_offset, length),
        Use(header.l1_offset, header.l1_entries * 8),
    ]
    seen: set[int] = set()
    for number, block in refcount_blocks(file, header):
        if block in seen:
            raise InvalidImage(f"the refcount block {number} is another one too", offset=block)
        if len(seen) == MAX_TABLES:
            raise TooMany("more refcount blocks than are counted")
        seen.add(block)
        metadata.append(Use(block, cluster))
    times: Counter[int] = Counter()
    _add_tables(file, header, header.l1_offset, header.l1_entries, times)
    lists = _snapshots(file, header)
    metadata += lists
    for use in lists[1:]:
        _add_tables(file, header, use.offset, use.length // 8, times)
    if bitmaps is not None:
        metadata += _bitmap_uses(file, header, bitmaps)
    return Tables(times, metadata)


def refcount_blocks(file: BlockDevice, header: Header) -> Iterator[tuple[int, int]]:
    """Yield (number, file offset) of the refcount blocks that are there.

    Raises:
        InvalidImage: One lies where none can.
    """
    count = (header.refcount_clusters << header.cluster_bits) // 8
    for first, words in data_words(file, header.refcount_offset, count):
        for number, offset in enumerate(words, first):
            if offset:
                what = f"the refcount block {number}"
                _require_place(file, header, offset, header.cluster_size, what)
                yield number, offset


def cluster_uses(file: BlockDevice, header: Header, tables: Tables) -> Iterator[Use]:
    """Yield every use of the file by a state: the L2 tables and what they name, neighbours as one.

    Raises:
        InvalidImage: It is not in the file.
    """
    for use in _uses_of_states(file, header, tables):
        # As elsewhere a file may end inside its last cluster.
        if use.offset + use.length - file.size >= header.cluster_size:
            raise InvalidImage(
                f"an L2 table names file offset {use.offset + use.length - header.cluster_size}, but the file has"
                f" {file.size} bytes",
                offset=use.offset,
            )
        yield use


def _uses_of_states(file: BlockDevice, header: Header, tables: Tables) -> Iterator[Use]:
    size, bits = header.cluster_size, header.cluster_bits
    for offset, times in tables.times.items():
        yield Use(offset, size, times)
        begin = end = 0
        for entry in l2_entries(file, header, offset):
            if entry & COMPRESSED:
                if not header.has_data_file:
                    yield Use(*parse_compressed(entry, bits), times)
                continue
            place = entry & OFFSET_MASK
            if place == end and end:
                end += size
                continue
            if end:
                yield Use(begin, end - begin, times)
            begin, end = (place, place + size) if place and not header.has_data_file else (0, 0)
        if end:
            yield Use(begin, end - begin, times)


def l2_entries(file: BlockDevice, header: Header, offset: int) -> "array[int]":
    """Return the first words of all entries of the L2 table at a file offset."""
    words = read_words(file, offset, header.cluster_size // 8, "Q", "big")
    return words[::2] if header.is_extended else words


def data_words(file: BlockDevice, offset: int, count: int) -> Iterator[tuple[int, "array[int]"]]:
    """Yield (first, numbers) of a table of numbers of 8 bytes, without what is a hole of the file."""
    done = 0
    if not count:  # of nothing the place may be anywhere
        return
    for extent in file.extents(offset, count * 8):
        if extent.is_data:
            first = max(done, (extent.offset - offset) // 8)
            end = min(count, -(-(extent.offset + extent.length - offset) // 8))
            while first < end:
                step = min(_PAGE_WORDS, end - first)
                yield first, read_words(file, offset + first * 8, step, "Q", "big")
                first += step
            done = max(done, end)


def _add_tables(
    file: BlockDevice, header: Header, offset: int, count: int, times: Counter[int]
) -> None:
    seen: set[int] = set()
    for first, words in data_words(file, offset, count):
        for number, entry in enumerate(words, first):
            place = entry & OFFSET_MASK
            if not place:
                continue
            what = f"the L2 table of entry {number} of the L1 table at file offset {offset}"
            _require_place(file, header, place, header.cluster_size, what)
            if place in seen:
                raise InvalidImage(f"{what} is that of another entry too", offset=place)
            seen.add(place)
        if len(seen) + len(times) > MAX_TABLES:
            raise TooMany("more L2 tables than are counted")
    times.update(seen)


def _snapshots(file: BlockDevice, header: Header) -> list[Use]:
    """Return where the list of the internal snapshots and their L1 tables lie, the list first."""
    start = position = header.snapshots_offset
    if not header.snapshots:
        return []
    if header.snapshots > _MAX_SNAPSHOTS:
        raise TooMany(f"{header.snapshots} snapshots")
    found, total = [Use(start, 0)], 0
    for number in range(header.snapshots):
        what = f"snapshot {number}"
        _require_inside(file, position, _SNAPSHOT.size, what)
        fields = _SNAPSHOT.unpack(read_bytes(file, position, _SNAPSHOT.size))
        l1_offset, entries, id_length, name_length, extra = *fields[:4], fields[8]
        if not (_MIN_EXTRA if header.version > 2 else 0) <= extra <= _MAX_EXTRA:
            raise InvalidImage(f"{what} has {extra} bytes of extra data", offset=position + 36)
        length = entries * 8
        if entries or l1_offset:
            _require_place(file, header, l1_offset, length, f"the L1 table of {what}")
            found.append(Use(l1_offset, length))
        position += round_up(_SNAPSHOT.size + extra + id_length + name_length, 8)
        total += length
        if total > _MAX_LISTS or position - start > _MAX_LISTS:
            raise TooMany("the lists of the snapshots are too long")
    _require_inside(file, start, position - start, "the list of snapshots")
    found[0] = Use(start, position - start)
    return found


def _bitmap_uses(file: BlockDevice, header: Header, directory: BitmapDirectory) -> Iterator[Use]:
    """Yield the bitmaps' directory, their tables, and the clusters of their bits."""
    start, position = directory.offset, directory.offset
    if directory.length > _MAX_LISTS or directory.bitmaps > directory.length // _BITMAP.size:
        raise InvalidImage(
            f"a directory of {directory.length} bytes for {directory.bitmaps} bitmaps"
        )
    _require_place(file, header, start, directory.length, "the directory of bitmaps")
    yield Use(start, directory.length)
    tables = []
    for number in range(directory.bitmaps):
        _require_inside(file, position, _BITMAP.size, f"bitmap {number}")
        fields = _BITMAP.unpack(read_bytes(file, position, _BITMAP.size))
        offset, entries, name_length, extra = *fields[:2], *fields[5:]
        _require_place(file, header, offset, entries * 8, f"the table of bitmap {number}")
        if entries:
            tables.append(FileRange(offset, entries * 8, f"the table of bitmap {number}"))
        position += round_up(_BITMAP.size + extra + name_length, 8)
    for table in require_apart(tables, file.size):
        yield Use(table.offset, table.length)
        for _, words in data_words(file, table.offset, table.length // 8):
            for entry in words:
                if entry & OFFSET_MASK:
                    yield Use(entry & OFFSET_MASK, header.cluster_size)


def _require_place(file: BlockDevice, header: Header, offset: int, length: int, what: str) -> None:
    if not offset or offset % header.cluster_size:
        raise InvalidImage(
            f"{what} lies at file offset {offset}, expected a positive multiple of {header.cluster_size}",
            offset=offset,
        )
    _require_inside(file, offset, length, what)


def _require_inside(file: BlockDevice, offset: int, length: int, what: str) -> None:
    if offset + length > file.size:
        raise InvalidImage(
            f"{what} ends at file offset {offset + length}, but the file has {file.size} bytes",
            offset=offset,
        )
