"""Check a VMDK that can be opened: both grain directories, flags, markers of compressed grains, leaked space.

Reads tables and markers, inflates nothing; of a parent only the opening is checked. Changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from imaging.check import Finding, Severity, UsageMap
from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.base import DiskImage
from imaging.formats.leaks import find_leaks
from imaging.formats.vmdk.device import Part, VmdkImage
from imaging.formats.vmdk.grain import GrainDecoder
from imaging.formats.vmdk.layout import HEADER_SIZE, parse_marker
from imaging.formats.vmdk.sparse import SparseExtent
from imaging.formats.vmdk.tables import GrainTables, KeptWindows
from imaging.units import SECTOR_SIZE

_MARKER = 16
"""Bytes of a file that `parse_marker` looks at."""


def check_vmdk(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in a VMDK and its extents; in those of other files without an offset."""
    assert isinstance(image, VmdkImage)
    groups: dict[int, list[Part]] = {}
    for part in image.parts:
        groups.setdefault(id(part.file), []).append(part)
    for parts in groups.values():
        is_elsewhere = parts[0].file is not file
        for finding in _check_file(parts):
            if is_elsewhere:
                message = f"{parts[0].line.name}: {finding.message}"
                yield replace(finding, message=message, offset=None)
            else:
                yield finding


def _check_file(parts: Sequence[Part]) -> Iterator[Finding]:
    """Check one file: a sparse extent, or the flat ones that it holds."""
    file, sparse = parts[0].file, parts[0].sparse
    usage = UsageMap(file.size)
    if sparse is None:
        for part in parts:
            usage.add(part.line.file_offset, part.line.length)
        yield from find_leaks(file, usage, least=SECTOR_SIZE)
        return
    yield from _check_header(sparse, parts[0].line.length)
    is_known = _add_metadata(file, sparse, usage)
    if sparse.header.is_compressed:
        yield from _check_grains(file, sparse, usage)
    else:
        size = sparse.header.grain_size
        for number in range(sparse.tables.windows):
            for _, count, sector in sparse.tables.data_runs(number):
                usage.add(sector * SECTOR_SIZE, count * size)
    if is_known:
        yield from find_leaks(file, usage, least=sparse.header.grain_size)


def _check_header(sparse: SparseExtent, said: int) -> Iterator[Finding]:
    header = sparse.header
    if header.is_dirty:
        yield Finding(
            "check.not-closed",
            Severity.WARNING,
            "its writer did not close the image: what was written last may be missing",
            72,
            1,
        )
    if header.capacity != said:
        yield Finding(
            "check.sizes-differ",
            Severity.WARNING,
            f"the header says {header.capacity} bytes, the descriptor {said}",
            12,
            8,
        )
    if sparse.fault:
        yield Finding("check.copy-damaged", Severity.ERROR, sparse.fault, _other(sparse))


def _other(sparse: SparseExtent) -> int | None:
    """Return where the directory lies that does not count."""
    places = (sparse.header.directory_offset, sparse.header.redundant_offset)
    return next((place for place in places if place != sparse.directory_offset), None)


def _add_metadata(file: BlockDevice, sparse: SparseExtent, usage: UsageMap) -> bool:
    """Mark what is no grain as used; return whether all of it is known: a damaged directory hides its tables.

    A stream's footer is left out: it is shorter than the least that counts as leaked.
    """
    header, is_known = sparse.header, True
    usage.add(0, HEADER_SIZE)
    usage.add(header.descriptor_offset, header.descriptor_size)
    # A stream has a marker of one sector before each of them.
    before = SECTOR_SIZE if header.is_compressed else 0
    for offset in (header.directory_offset, header.redundant_offset):
        if offset is None:
            continue
        usage.add(offset - before, before + header.tables * 4)
        try:
            tables = GrainTables(file, header, offset, KeptWindows())
        except InvalidImage:
            is_known = False  # the other one counts, and the fault was said
            continue
        for start, length in tables.table_ranges():
            usage.add(start - before, before + length)
    return is_known


def _check_grains(file: BlockDevice, sparse: SparseExtent, usage: UsageMap) -> Iterator[Finding]:
    """Look at the marker of each compressed grain, which alone knows how long it is."""
    decoder = GrainDecoder(sparse.header.capacity, sparse.header.grain_size)
    is_empty = True
    for number in range(sparse.tables.windows):
        for first, count, _ in sparse.tables.data_runs(number):
            is_empty = False
            for grain, entry in enumerate(sparse.tables.entries(first, count), first):
                offset = entry * SECTOR_SIZE
                try:
                    length = decoder.length(
                        parse_marker(read_bytes(file, offset, _MARKER)), grain, offset
                    )
                    _require_inside(offset + length, sparse.data_end, grain)
                except InvalidImage as err:
                    yield Finding("check.grain-damaged", Severity.ERROR, str(err), offset)
                else:
                    usage.add(offset, length)
    if not is_empty:
        yield Finding(
            "check.content-unread",
            Severity.NOTE,
            "the content of compressed grains was not looked at: `imageport disk digest` inflates it",
        )


def _require_inside(end: int, data_end: int, grain: int) -> None:
    if end > data_end:
        raise InvalidImage(
            f"grain {grain} ends at file offset {end}, but the grains end at {data_end}"
        )
