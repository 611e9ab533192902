"""Check a VHDX that can be opened: headers, region tables, log, bitmaps, leaked space. Changes nothing."""

from collections.abc import Callable, Iterator, Sequence

from imaging.check import Finding, Severity, UsageMap
from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.base import DiskImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.leaks import find_leaks
from imaging.formats.vhdx.device import LoadedVhdx, load_vhdx
from imaging.formats.vhdx.entries import (
    BITMAP_SIZE,
)
from imaging.formats.vhdx.layout import (
    HEADER_OFFSETS,
    HEADER_SIZE,
    REGION_TABLE_OFFSETS,
    TABLE_SIZE,
    parse_header,
    parse_region_table,
)
from imaging.units import MiB


def check_vhdx(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:  # noqa: ARG001  (every checker has one shape)
    """Yield what is wrong or doubtful in a VHDX; its parent is not looked at."""
    loaded = load_vhdx(file)
    yield from _check_copies(file, HEADER_OFFSETS, HEADER_SIZE, parse_header)
    yield from _check_equal_headers(file)
    if loaded.dirty:
        yield Finding(
            "check.log-pending",
            Severity.WARNING,
            f"the log at file offset {loaded.header.log_offset} holds changes that were never applied:"
            " imageport applies them while it reads, qemu refuses the image, others ignore them",
            loaded.header.log_offset,
            loaded.header.log_length,
            repairable=True,
        )
    file = loaded.file
    yield from _check_copies(file, REGION_TABLE_OFFSETS, TABLE_SIZE, parse_region_table)
    yield from _check_region_tables(file)
    yield from _check_bitmaps(loaded)
    yield from _check_space(loaded)


def _check_copies(
    file: BlockDevice,
    offsets: Sequence[int],
    length: int,
    parse: Callable[[bytes, int], object],
) -> Iterator[Finding]:
    """Parse both copies: the one that counts is sound, or the image would not have opened."""
    for offset in offsets:
        try:
            parse(read_bytes(file, offset, length), offset)
        except InvalidImage as err:
            message = f"{err}; the other copy is sound"
            yield Finding(
                "check.copy-damaged", Severity.ERROR, message, offset, length, repairable=True
            )


def _check_equal_headers(file: BlockDevice) -> Iterator[Finding]:
    first, second = (read_bytes(file, offset, HEADER_SIZE) for offset in HEADER_OFFSETS)
    if first == second:
        yield Finding(
            "check.headers-equal",
            Severity.NOTE,
            "both headers have one sequence number, as disk2vhd writes them; the specification wants two",
            HEADER_OFFSETS[1],
            HEADER_SIZE,
        )


def _check_region_tables(file: BlockDevice) -> Iterator[Finding]:
    tables = []
    for offset in REGION_TABLE_OFFSETS:
        try:
            tables.append(parse_region_table(read_bytes(file, offset, TABLE_SIZE), offset))
        except InvalidImage:
            return  # said already
    if tables[0] != tables[1]:
        yield Finding(
            "check.copies-differ",
            Severity.ERROR,
            "the two region tables are sound but differ; the first one counts",
            REGION_TABLE_OFFSETS[1],
            TABLE_SIZE,
        )


def _check_bitmaps(loaded: LoadedVhdx) -> Iterator[Finding]:
    for chunk in loaded.table.stray_bitmaps():
        yield Finding(
            "check.bitmap-unneeded",
            Severity.WARNING,
            f"chunk {chunk} has a sector bitmap, but the disk has no parent",
        )
    bitmaps = SectorBitmaps(loaded.file, size=BITMAP_SIZE, msb_first=False)
    for block in loaded.table.mixed_blocks():
        run = loaded.table.layer(block, 1)
        runs = bitmaps.runs(run.bitmap_offset, run.first_bit, loaded.disk.block_sectors)
        kinds = {is_set for is_set, _ in runs}
        if len(kinds) == 1:
            whose = "this image's" if kinds == {True} else "the parent's"
            yield Finding(
                "check.bitmap-uniform",
                Severity.NOTE,
                f"block {block} is called partially present, but all of its sectors are {whose}",
                run.file_offset,
                loaded.disk.block_size,
            )


def _check_space(loaded: LoadedVhdx) -> Iterator[Finding]:
    usage = UsageMap(loaded.file.size)
    for item in loaded.reserved:
        usage.add(item.offset, item.length)
    for offset, length in loaded.table.named_ranges():
        usage.add(offset, length)
    return find_leaks(loaded.file, usage, least=MiB)
