"""Make the disk of a VHDX larger ([MS-VHDX]); a sound image of the old or the new size at every moment.

Blocks and BAT entries behind the disk's end are written first: nobody looks there. Then one entry of the log changes
the virtual size (2.6.2.2) and, where the BAT moved to a longer region behind the file's end, both region tables.
"""

import struct
import uuid

from imaging.device import ResizableDevice, read_bytes
from imaging.errors import DiskTooLarge, UnsupportedImage
from imaging.formats.resizing import require_larger
from imaging.formats.signatures import MAX_VIRTUAL_SIZE
from imaging.formats.vhdx.device import LoadedVhdx, load_vhdx, read_regions
from imaging.formats.vhdx.edit import apply_log
from imaging.formats.vhdx.entries import (
    ENTRY_SIZE,
    FULLY_PRESENT,
    build_entries,
    entry_count,
    entry_index,
    place_of,
    state_of,
)
from imaging.formats.vhdx.headers import Headers
from imaging.formats.vhdx.layout import (
    ITEM_VIRTUAL_SIZE,
    REGION_BAT,
    REGION_METADATA,
    REGION_TABLE_OFFSETS,
    TABLE_SIZE,
    Region,
    build_region_table,
    parse_metadata_table,
)
from imaging.formats.vhdx.log_write import PAGE, LogWriter
from imaging.overlay import OverlayDevice
from imaging.units import MiB, round_up

_STEP = 1 * MiB
_MANY_BLOCKS = 1 << 15
"""Blocks whose entries are built at a time."""


def resize_vhdx(file: ResizableDevice, size: int) -> None:
    """Make the disk `size` bytes long; what is added reads as zeros. Durable when this returns.

    Raises:
        SizeRefused: It is no larger, or no whole number of sectors.
        DiskTooLarge: A VHDX has no such disk.
        UnsupportedImage: It is a differencing disk, or its last block has no room.
        ImagingError: The image cannot be opened.
    """
    loaded = load_vhdx(file)
    disk = loaded.disk
    require_larger(disk.virtual_size, size, disk.sector_size)
    if size > MAX_VIRTUAL_SIZE:
        raise DiskTooLarge(
            f"a disk of {size} bytes is larger than a VHDX takes, {MAX_VIRTUAL_SIZE} bytes",
            size=size,
            limit=MAX_VIRTUAL_SIZE,
        )
    if disk.has_parent:
        raise UnsupportedImage("a differencing VHDX is not resized: merge it, or convert it first")
    if loaded.dirty:
        apply_log(file)
        loaded = load_vhdx(file)
    headers = Headers(file)
    log = LogWriter(file, headers)
    if file.size % MiB:
        file.truncate(round_up(file.size, MiB))
    headers.put(data_write_guid=uuid.uuid4().bytes_le)
    _clear_last_block(file, loaded)
    regions, _ = read_regions(file)
    pages = OverlayDevice(file)
    has_moved = _write_entries(file, loaded, size, regions, pages)
    _write_size(file, regions[REGION_METADATA], size, pages)
    log.commit(_changed_pages(pages))
    log.close()
    if has_moved:  # nothing names the old place any more
        file.zero(regions[REGION_BAT].offset, regions[REGION_BAT].length)


def _clear_last_block(file: ResizableDevice, loaded: LoadedVhdx) -> None:
    """Zero what the last block has behind the disk's end, which is going to be seen."""
    block_size = loaded.disk.block_size
    last, used = divmod(loaded.disk.virtual_size, block_size)
    entry = loaded.table.entry(last) if used else 0
    if state_of(entry) != FULLY_PRESENT:
        return
    start = place_of(entry)
    others = [item.offset for item in loaded.reserved]
    others += [offset for offset, _ in loaded.table.named_ranges()]
    if any(start < offset < start + block_size for offset in others):
        raise UnsupportedImage(
            "the last block ends with the disk and has no room to grow: convert it", offset=start
        )
    if start + block_size > file.size:
        file.truncate(start + block_size)
    file.zero(start + used, block_size - used)


def _write_entries(
    file: ResizableDevice,
    loaded: LoadedVhdx,
    size: int,
    regions: dict[bytes, Region],
    pages: OverlayDevice,
) -> bool:
    """Write the entries of the new blocks, in a longer region where this one is too short; return whether it was."""
    disk, bat = loaded.disk, regions[REGION_BAT]
    blocks = -(-size // disk.block_size)
    old, new = (entry_count(disk, count) * ENTRY_SIZE for count in (disk.blocks, blocks))
    has_moved = new > bat.length
    if has_moved:
        moved = bat._replace(offset=file.size, length=round_up(new, MiB))
        file.truncate(moved.offset + moved.length)
        for done in range(0, old, _STEP):
            count = min(_STEP, old - done)
            file.write(moved.offset + done, read_bytes(file, bat.offset + done, count))
        table = build_region_table([*(regions | {REGION_BAT: moved}).values()])
        for offset in REGION_TABLE_OFFSETS:
            pages.write(offset, table)
        bat = moved
    else:
        for done in range(old, new, _STEP):
            file.write(bat.offset + done, bytes(min(_STEP, new - done)))
    if disk.is_fixed and blocks > disk.blocks:
        _allocate(file, loaded, blocks, bat)
    return has_moved


def _allocate(file: ResizableDevice, loaded: LoadedVhdx, blocks: int, bat: Region) -> None:
    """Give each new block of a fixed disk its place behind the file's end: holes, which read as zeros."""
    disk, start = loaded.disk, file.size
    count = blocks - disk.blocks
    file.truncate(start + count * disk.block_size)
    for first in range(0, count, _MANY_BLOCKS):
        last = min(first + _MANY_BLOCKS, count)
        places = range(
            start + first * disk.block_size, start + last * disk.block_size, disk.block_size
        )
        at = bat.offset + entry_index(disk.blocks + first, disk) * ENTRY_SIZE
        file.write(at, build_entries(disk, disk.blocks + first, places))


def _write_size(file: ResizableDevice, metadata: Region, size: int, pages: OverlayDevice) -> None:
    table = parse_metadata_table(read_bytes(file, metadata.offset, TABLE_SIZE), metadata.offset)
    (item,) = (item for item in table if item.guid == ITEM_VIRTUAL_SIZE)
    pages.write(metadata.offset + item.offset, struct.pack("<Q", size))


def _changed_pages(pages: OverlayDevice) -> dict[int, bytes]:
    """Return the pages in which there are changes, by file offset."""
    numbers: set[int] = set()
    for offset, length, _ in pages.changes():
        numbers.update(range(offset // PAGE, (offset + length - 1) // PAGE + 1))
    return {number * PAGE: read_bytes(pages, number * PAGE, PAGE) for number in sorted(numbers)}
