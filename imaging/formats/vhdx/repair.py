"""Repair of a VHDX that can be opened ([MS-VHDX] 2.2, 2.3): changes no byte of the disk, has nothing to guess."""

from imaging.device import ResizableDevice, read_bytes
from imaging.formats.vhdx.edit import apply_log
from imaging.formats.vhdx.headers import Headers, read_copies, read_header
from imaging.formats.vhdx.layout import (
    HEADER_OFFSETS,
    HEADER_SIZE,
    NO_GUID,
    REGION_TABLE_OFFSETS,
    TABLE_SIZE,
    parse_header,
    parse_region_table,
)


def repair_vhdx(file: ResizableDevice) -> None:
    """Apply a pending log, then write each damaged copy of header and region table anew from the sound one.

    Durable when it returns; killed anywhere, the file is sound and it can be done again.
    """
    if read_header(file)[0].log_guid != NO_GUID:
        apply_log(file)
    headers, _ = read_copies(file, HEADER_OFFSETS, HEADER_SIZE, parse_header)
    if len(headers) < len(HEADER_OFFSETS):
        Headers(file).put()
    tables, _ = read_copies(file, REGION_TABLE_OFFSETS, TABLE_SIZE, parse_region_table)
    for damaged in set(REGION_TABLE_OFFSETS) - tables.keys():
        (sound,) = tables
        file.write(damaged, read_bytes(file, sound, TABLE_SIZE))
        file.flush()
