"""Check a VHD that can be opened: both footers, the tail of the BAT, bitmaps, leaked space. Changes nothing."""

from array import array
from collections.abc import Iterator

from imaging.check import Finding, Severity, UsageMap
from imaging.device import BlockDevice, read_bytes
from imaging.formats.base import DiskImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.leaks import find_leaks
from imaging.formats.vhd.device import LoadedVhd, find_footer, load_dynamic
from imaging.formats.vhd.layout import ABSENT, FOOTER_SIZE, SHORT_FOOTER_SIZE, DiskType, is_footer
from imaging.units import SECTOR_SIZE, MiB

_STEP = 1 * MiB
_ZEROS = bytes(_STEP)


def check_vhd(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:  # noqa: ARG001  (every checker has one shape)
    """Yield what is wrong or doubtful in a VHD."""
    footer, data_end, _ = find_footer(file)
    yield from _check_footers(file, footer.disk_type)
    if footer.saved_state:
        yield Finding(
            "check.saved-state",
            Severity.WARNING,
            "a suspended virtual machine owns this disk: it may be inconsistent",
            data_end,
        )
    if footer.disk_type is DiskType.FIXED:
        usage = UsageMap(data_end)
        usage.add(0, footer.current_size)
        yield from find_leaks(file, usage, least=SECTOR_SIZE)
        return
    loaded = load_dynamic(file, footer, data_end)
    yield from _check_unreachable(file, loaded)
    if footer.disk_type is DiskType.DYNAMIC:
        yield from _check_bitmaps(file, loaded)
    yield from _check_space(file, loaded)


def _check_footers(file: BlockDevice, disk_type: DiskType) -> Iterator[Finding]:
    """Compare the footer at the end with its copy at the start, which fixed disks do not have."""
    end = file.size - FOOTER_SIZE
    last = read_bytes(file, end, FOOTER_SIZE)
    if file.size % SECTOR_SIZE == SHORT_FOOTER_SIZE and is_footer(last[1:]):
        end, last = end + 1, last[1:].ljust(FOOTER_SIZE, b"\0")
        yield Finding("check.short-footer", Severity.NOTE, "the footer has 511 bytes", end, 511)
    if disk_type is DiskType.FIXED:
        return
    first = read_bytes(file, 0, FOOTER_SIZE)
    for offset, block, name in ((end, last, "footer"), (0, first, "copy of the footer")):
        if not is_footer(block):
            yield Finding(
                "check.copy-damaged",
                Severity.ERROR,
                f"the {name} at file offset {offset} is damaged, the other one is sound",
                offset,
                FOOTER_SIZE,
                repairable=True,
            )
            return
    if first != last:
        at = next(i for i in range(FOOTER_SIZE) if first[i] != last[i])
        yield Finding(
            "check.copies-differ",
            Severity.ERROR,
            f"the footer at file offset {end} and its copy differ from byte {at} on; the footer counts",
            end + at,
        )


def _check_unreachable(file: BlockDevice, loaded: LoadedVhd) -> Iterator[Finding]:
    """Look at the BAT entries behind the disk's end: what they name cannot be reached."""
    header = loaded.header
    blocks = -(-loaded.footer.current_size // header.block_size)
    position, stop = header.table_offset + blocks * 4, header.table_offset + header.max_entries * 4
    count, first = 0, None
    while position < stop:
        length = min(_STEP, stop - position)
        found, at = _named_entries(file, position, length)
        count, first = count + found, position + at if found and first is None else first
        position += length
    if count:
        yield Finding(
            "check.unreachable",
            Severity.WARNING,
            f"{count} BAT entries behind the disk's end name blocks that no one can reach",
            first,
        )


def _named_entries(file: BlockDevice, offset: int, length: int) -> tuple[int, int]:
    """Return how many BAT entries of a range name a block, and where in it the first one is."""
    if not any(extent.is_data for extent in file.extents(offset, length)):
        return length // 4, 0  # zeros name a block too; a table of gigabytes may be a hole
    entries = array("I", read_bytes(file, offset, length))
    found = len(entries) - entries.count(ABSENT)
    return found, 4 * next((at for at, entry in enumerate(entries) if entry != ABSENT), 0)


def _check_bitmaps(file: BlockDevice, loaded: LoadedVhd) -> Iterator[Finding]:
    """Look for data under the 0 bits of a dynamic disk: some programs show zeros there, others the data."""
    table, block_size = loaded.table, loaded.header.block_size
    bitmaps = SectorBitmaps(file, size=table.bitmap_size, msb_first=True)
    for block, offset in table.bitmap_offsets():
        rest = min(block_size, loaded.footer.current_size - block * block_size)
        for first in range(0, rest // SECTOR_SIZE, _STEP // SECTOR_SIZE):
            count = min(_STEP // SECTOR_SIZE, rest // SECTOR_SIZE - first)
            start = offset + table.bitmap_size + first * SECTOR_SIZE
            hidden = _hidden_at(file, start, list(bitmaps.runs(offset, first, count)))
            if hidden is not None:
                yield Finding(
                    "check.bitmap-hides-data",
                    Severity.WARNING,
                    f"block {block} has data at file offset {hidden} where its bitmap says that there is"
                    " none: imageport and qemu read the data, others may read zeros",
                    hidden,
                )
                break


def _hidden_at(file: BlockDevice, start: int, runs: list[tuple[bool, int]]) -> int | None:
    """Return where the first run of unset sectors with data under them begins."""
    if all(is_set for is_set, _ in runs):
        return None
    content = read_bytes(file, start, sum(count for _, count in runs) * SECTOR_SIZE)
    at = 0
    for is_set, count in runs:
        length = count * SECTOR_SIZE
        if not is_set and content[at : at + length] != _ZEROS[:length]:
            return start + at
        at += length
    return None


def _check_space(file: BlockDevice, loaded: LoadedVhd) -> Iterator[Finding]:
    """Look for room of whole blocks that nothing names; less is padding between structures."""
    usage, span = UsageMap(loaded.data_end), loaded.table.bitmap_size + loaded.header.block_size
    for item in loaded.reserved:
        usage.add(item.offset, item.length)
    for _, offset in loaded.table.bitmap_offsets():
        usage.add(offset, span)
    return find_leaks(file, usage, least=span)
