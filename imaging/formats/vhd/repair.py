"""Repair of a VHD that can be opened: what changes no byte of the disk and has nothing to guess."""

from imaging.device import ResizableDevice, read_bytes
from imaging.formats.vhd.device import find_footer, load_dynamic
from imaging.formats.vhd.layout import FOOTER_SIZE, DiskType, is_footer
from imaging.units import SECTOR_SIZE, round_up


def repair_vhd(file: ResizableDevice) -> None:
    """Write a damaged footer of a dynamic disk anew from the other one.

    A footer at the end that is damaged in its place is written over: no block reaches there, or the image would not
    have opened. Where none is left, one is added behind the file's end and the room of the last block.

    Durable when it returns; killed anywhere, the file is sound and it can be done again.
    """
    footer, data_end, warnings = find_footer(file)
    if footer.disk_type is DiskType.FIXED:
        return
    loaded = load_dynamic(file, footer, data_end)
    head = read_bytes(file, 0, FOOTER_SIZE)
    if warnings:
        place = data_end
        if data_end == file.size:
            span = loaded.table.bitmap_size + loaded.header.block_size
            ends = (offset + span for _, offset in loaded.table.bitmap_offsets())
            place = round_up(max([file.size, *ends]), SECTOR_SIZE)
            file.truncate(place + FOOTER_SIZE)
        file.write(place, head)
        file.flush()
    elif not is_footer(head):
        file.write(0, read_bytes(file, data_end, file.size - data_end).ljust(FOOTER_SIZE, b"\0"))
        file.flush()
