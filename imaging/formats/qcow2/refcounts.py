"""Refcounts of a qcow2 compared with what uses its clusters, a window of the file at a time; names what differs.

"qcow2" (qemu, docs/interop/qcow2.txt), "Host cluster management". Memory: 4 bytes for each cluster of a window.
"""

from array import array
from collections.abc import Iterator
from itertools import groupby

from imaging.check import Finding, Severity
from imaging.device import BlockDevice, read_bytes
from imaging.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, Header
from imaging.formats.qcow2.uses import (
    Tables,
    TooMany,
    Use,
    cluster_uses,
    l2_entries,
    refcount_blocks,
)
from imaging.words import order_words, read_words

WINDOW = 1 << 23
"""Clusters that are looked at together: 512 GiB of a file with clusters of 64 KiB, 32 MiB of memory."""
MAX_WINDOWS = 128
"""Each costs a pass over all tables; a longer file is a hole with an image in it."""
_MOST = 0xFFFF
"""Uses beyond this are not told apart: two bytes each."""


def compare_refcounts(file: BlockDevice, header: Header, tables: Tables) -> Iterator[Finding]:
    """Yield clusters with another refcount than uses, and entries whose flag says otherwise than the refcount.

    Raises:
        TooMany: The file has more clusters than are counted.
    """
    clusters = -(-file.size >> header.cluster_bits)
    if clusters > WINDOW * MAX_WINDOWS:
        raise TooMany(f"{clusters} clusters")
    for first in range(0, clusters, WINDOW):
        count = min(WINDOW, clusters - first)
        refcounts = _refcounts(file, header, first, count)
        uses = _uses(file, header, tables, first, count)
        yield from _shared(uses, tables, first, header)
        yield from _differences(uses, refcounts, first, header)
        yield from _wrong_flags(file, header, refcounts, first)


def _uses(
    file: BlockDevice, header: Header, tables: Tables, first: int, count: int
) -> "array[int]":
    """Count the uses of the clusters of a window."""
    counts = array("H", bytes(2)) * count
    for use in tables.metadata:
        _count(counts, use, first, header.cluster_bits)
    for use in cluster_uses(file, header, tables):
        _count(counts, use, first, header.cluster_bits)
    return counts


def _count(counts: "array[int]", use: Use, first: int, bits: int) -> None:
    begin = max((use.offset >> bits) - first, 0)
    end = min((use.offset + use.length - 1 >> bits) + 1 - first, len(counts))
    if end - begin > 1 and not any(counts[begin:end]):
        counts[begin:end] = array("H", [min(use.times, _MOST)]) * (end - begin)
        return
    for index in range(begin, end):
        counts[index] = min(counts[index] + use.times, _MOST)


def _refcounts(file: BlockDevice, header: Header, first: int, count: int) -> "array[int]":
    """Return the refcounts of the clusters of a window, as far as two bytes tell them."""
    found = array("H", bytes(2)) * count
    covered = (header.cluster_size * 8) >> header.refcount_order
    for number, offset in refcount_blocks(file, header):
        begin = number * covered - first
        if begin + covered <= 0:
            continue
        if begin >= count:
            break
        block = _read_block(file, header, offset)
        skipped = max(0, -begin)
        end = min(begin + covered, count)
        found[begin + skipped : end] = block[skipped : end - begin]
    return found


def _read_block(file: BlockDevice, header: Header, offset: int) -> "array[int]":
    """Read a refcount block; entries below a byte begin at its lowest bit."""
    order, size = header.refcount_order, header.cluster_size
    if order == 4:
        return read_words(file, offset, size // 2, "H", "big")
    packed = read_bytes(file, offset, size)
    if order > 4:
        words = array("I" if order == 5 else "Q", packed)
        order_words(words, "big")
        return array("H", [min(word, _MOST) for word in words])
    width, mask = 1 << order, (1 << (1 << order)) - 1
    values = (byte >> shift & mask for byte in packed for shift in range(0, 8, width))
    return array("H", values)


def _shared(uses: "array[int]", tables: Tables, first: int, header: Header) -> Iterator[Finding]:
    """Look for metadata in clusters that something else uses too."""
    bits = header.cluster_bits
    for use in tables.metadata:
        begin = max((use.offset >> bits) - first, 0)
        part = uses[begin : max((use.offset + use.length - 1 >> bits) + 1 - first, 0)]
        if part and max(part) > 1:
            message = f"{use.length} bytes of metadata at file offset {use.offset} are used by something else too"
            yield Finding("check.metadata-shared", Severity.ERROR, message, use.offset, use.length)


def _differences(
    uses: "array[int]", refcounts: "array[int]", first: int, header: Header
) -> Iterator[Finding]:
    if uses == refcounts:
        return
    different = (at for at in range(len(uses)) if uses[at] != refcounts[at])
    runs = groupby(
        enumerate(different), lambda pair: (pair[1] - pair[0], uses[pair[1]], refcounts[pair[1]])
    )
    for (_, used, counted), run in runs:
        places = [at for _, at in run]
        yield _difference(first + places[0], len(places), used, counted, header)


def _difference(cluster: int, count: int, used: int, counted: int, header: Header) -> Finding:
    offset, length = cluster << header.cluster_bits, count << header.cluster_bits
    where = f"{count} clusters from file offset {offset} on"
    if used > counted:
        message = f"{where} have a refcount of {counted}, but {used} uses: a program that writes may overwrite them"
        return Finding("check.refcount-low", Severity.ERROR, message, offset, length)
    if used:
        message = f"{where} have a refcount of {counted}, but {used} uses: they will never be free"
        return Finding("check.refcount-high", Severity.WARNING, message, offset, length)
    message = f"{where} have a refcount of {counted}, but belong to nothing"
    return Finding("check.leaked-space", Severity.WARNING, message, offset, length)


def _wrong_flags(
    file: BlockDevice, header: Header, refcounts: "array[int]", first: int
) -> Iterator[Finding]:
    """Look at bit 63 of the active L1 and L2 entries: it says that the refcount is exactly 1."""
    for name, number, entry, offset in _active_entries(file, header):
        if entry & COMPRESSED:  # of its clusters, which it shares with others, it may never say so
            is_wrong = bool(entry & COPIED) and not first
        else:
            index = ((entry & OFFSET_MASK) >> header.cluster_bits) - first
            is_known = 0 <= index < len(refcounts)
            is_wrong = is_known and (refcounts[index] == 1) != bool(entry & COPIED)
        if is_wrong:
            yield _wrong_flag(f"{name} {number}", entry, offset)


def _active_entries(file: BlockDevice, header: Header) -> Iterator[tuple[str, int, int, int]]:
    """Yield (name, number, entry, file offset) of the active L1 and L2 entries that name a place of this file."""
    step = 16 if header.is_extended else 8
    per_table = header.cluster_size // step
    for number, entry in enumerate(
        read_words(file, header.l1_offset, header.l1_entries, "Q", "big")
    ):
        table = entry & OFFSET_MASK
        if table:
            yield "L1 entry", number, entry, header.l1_offset + number * 8
        if table and not header.has_data_file:
            for index, below in enumerate(l2_entries(file, header, table)):
                if below & OFFSET_MASK:
                    place = table + index * step
                    yield "the L2 entry of cluster", number * per_table + index, below, place


def _wrong_flag(what: str, entry: int, offset: int) -> Finding:
    said = "is 1" if entry & COPIED else "is not 1"
    message = f"{what} says that the refcount of what it names {said}, which is wrong"
    return Finding("check.copied-flag", Severity.ERROR, message, offset, 8)
