"""Make the disk of a VHD larger; a sound image of the old or the new size at every moment.

A dynamic disk needs a longer BAT at times: it moves behind the blocks, and one sector of the dynamic header says so.
The old one's place becomes a hole. A fixed disk has only the footer at its end, which must never be missing: first a
second one is added where the new end will be, still of the old size; then the old one, a gap then, is zeroed; then the
new one tells the new size, in one sector.
"""

import struct

from imaging.device import ResizableDevice, read_bytes
from imaging.errors import DiskTooLarge, InvalidImage, UnsupportedImage
from imaging.formats.resizing import require_larger
from imaging.formats.signatures import MAX_DYNAMIC_VHD, MAX_VIRTUAL_SIZE
from imaging.formats.vhd.device import LoadedVhd, find_footer, load_dynamic
from imaging.formats.vhd.layout import (
    ABSENT,
    FOOTER_SIZE,
    DiskType,
    Footer,
    move_table,
    resize_footer,
)
from imaging.units import SECTOR_SIZE, MiB, round_up

_ENTRY = struct.Struct(">I")
_STEP = 1 * MiB


def resize_vhd(file: ResizableDevice, size: int) -> None:
    """Make the disk `size` bytes long; what is added reads as zeros. Durable when this returns.

    Raises:
        SizeRefused: It is no larger, or no multiple of 512 bytes.
        DiskTooLarge: A VHD has no such disk.
        UnsupportedImage: It is a differencing disk, a suspended machine owns it, its last block was cut, or what has to
            change in one step lies in two sectors.
        InvalidImage: It is damaged, if only a copy: it must be repaired first.
    """
    footer, data_end, warnings = find_footer(file)
    require_larger(footer.current_size, size, SECTOR_SIZE)
    if warnings:
        raise InvalidImage(
            f"{warnings[0]}: a damaged VHD is not written, repair it first", offset=data_end
        )
    if footer.saved_state:
        raise UnsupportedImage(
            "a suspended virtual machine owns this disk: resume it and shut it down"
        )
    if footer.disk_type is DiskType.DIFFERENCING:
        raise UnsupportedImage("a differencing VHD is as large as its parent: convert it first")
    limit = MAX_VIRTUAL_SIZE if footer.disk_type is DiskType.FIXED else MAX_DYNAMIC_VHD
    if size > limit:
        raise DiskTooLarge(
            f"a disk of {size} bytes is larger than a VHD takes, {limit} bytes",
            size=size,
            limit=limit,
        )
    block = read_bytes(file, data_end, file.size - data_end).ljust(FOOTER_SIZE, b"\0")
    if footer.disk_type is DiskType.FIXED:
        _resize_fixed(file, block, data_end, size)
    else:
        _resize_dynamic(file, block, footer, data_end, size)


def _resize_fixed(file: ResizableDevice, footer: bytes, data_end: int, size: int) -> None:
    if data_end % SECTOR_SIZE:
        raise UnsupportedImage(
            f"the footer at file offset {data_end} lies in two sectors: it cannot be changed safely, convert it",
            offset=data_end,
        )
    old_size = find_footer(file)[0].current_size
    end = data_end
    if size > data_end:
        end = size
        file.append(end, footer)
        file.flush()
    file.zero(old_size, end - old_size)
    file.flush()
    _put_footer(file, end, resize_footer(footer, size))


def _resize_dynamic(
    file: ResizableDevice, block: bytes, footer: Footer, data_end: int, size: int
) -> None:
    loaded = load_dynamic(file, footer, data_end)
    _clear_last_block(file, loaded)
    blocks = -(-size // loaded.header.block_size)
    if blocks > loaded.header.max_entries:
        data_end = _move_table(file, block, loaded, blocks)
    else:
        _clear_entries(file, loaded, blocks)
    file.flush()
    resized = resize_footer(block, size)
    _put_footer(file, data_end, resized)
    file.write(0, resized)
    file.flush()
    if blocks > loaded.header.max_entries:  # nothing names the old BAT any more
        file.zero(loaded.header.table_offset, loaded.header.max_entries * _ENTRY.size)


def _put_footer(file: ResizableDevice, offset: int, footer: bytes) -> None:
    """Write over the footer at the end, which may have had 511 bytes."""
    if offset + FOOTER_SIZE > file.size:
        file.truncate(offset + FOOTER_SIZE)
    file.write(offset, footer)
    file.flush()


def _clear_last_block(file: ResizableDevice, loaded: LoadedVhd) -> None:
    """Zero what the last block has behind the disk's end, which is going to be seen."""
    block_size, old = loaded.header.block_size, loaded.footer.current_size
    last, used = divmod(old, block_size)
    bitmap = loaded.table.entry(last) if used else None
    if bitmap is None:
        return
    start = bitmap + loaded.table.bitmap_size
    # No other block begins there, or it would not have opened.
    is_cut = start + block_size > loaded.data_end
    if is_cut or any(start < item.offset < start + block_size for item in loaded.reserved):
        raise UnsupportedImage(
            "the last block ends with the disk and has no room to grow: convert it", offset=start
        )
    file.zero(start + used, block_size - used)


def _clear_entries(file: ResizableDevice, loaded: LoadedVhd, blocks: int) -> None:
    """Make blocks that are going to be seen absent; their entries may say anything now."""
    first = -(-loaded.footer.current_size // loaded.header.block_size)
    count = blocks - first
    if count > 0:
        file.write(loaded.header.table_offset + first * _ENTRY.size, _ENTRY.pack(ABSENT) * count)


def _move_table(file: ResizableDevice, footer: bytes, loaded: LoadedVhd, blocks: int) -> int:
    """Write a longer BAT where the footer was, behind which there is another one; return where that is.

    The change of the header, which makes the new BAT count, is the caller's to flush.
    """
    header = loaded.header
    if loaded.footer.data_offset % SECTOR_SIZE:
        raise UnsupportedImage(
            "the dynamic header does not lie in whole sectors, so it cannot be changed safely"
        )
    old = -(-loaded.footer.current_size // header.block_size)
    place = round_up(loaded.data_end, SECTOR_SIZE)
    length = round_up(blocks * _ENTRY.size, SECTOR_SIZE)
    end = place + length
    file.append(end, footer)
    file.flush()
    for done in range(0, old * _ENTRY.size, _STEP):
        count = min(_STEP, old * _ENTRY.size - done)
        file.write(place + done, read_bytes(file, header.table_offset + done, count))
    for done in range(old * _ENTRY.size, length, _STEP):
        file.write(place + done, b"\xff" * min(_STEP, length - done))
    file.flush()
    offset = loaded.footer.data_offset
    moved = move_table(read_bytes(file, offset, 1024), table_offset=place, max_entries=blocks)
    file.write(
        offset, moved[:SECTOR_SIZE]
    )  # checksum and both fields: what changes is in one sector
    return end
