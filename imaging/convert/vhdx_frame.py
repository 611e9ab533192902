"""What a new VHDX has besides its blocks and its BAT ([MS-VHDX] 2.2, 2.6): written behind them, the headers last.

The file is: headers (0), an empty log (1 MiB), metadata (2 MiB), BAT (3 MiB), blocks, as Hyper-V lays it out.
"""

import uuid

from imaging.formats.vhdx.layout import (
    HEADER_OFFSETS,
    NO_GUID,
    REGION_BAT,
    REGION_METADATA,
    REGION_TABLE_OFFSETS,
    Header,
    Region,
    build_header,
    build_identifier,
    build_region_table,
)
from imaging.output import OutputFile
from imaging.units import MiB

BAT_OFFSET = 3 * MiB
_LOG = (1 * MiB, 1 * MiB)
_METADATA = (2 * MiB, 1 * MiB)
_CREATOR = "imageport"


def write_metadata(file: OutputFile, metadata: bytes, *, bat_length: int) -> None:
    """Write both region tables and the metadata region.

    Args:
        file: The new file; not yet a VHDX.
        metadata: Table and items.
        bat_length: Bytes of the BAT region, a multiple of 1 MiB.
    """
    regions = [
        Region(REGION_METADATA, *_METADATA, required=True),
        Region(REGION_BAT, BAT_OFFSET, bat_length, required=True),
    ]
    for offset in REGION_TABLE_OFFSETS:
        file.write(offset, build_region_table(regions))
    file.write(_METADATA[0], metadata)


def write_headers(file: OutputFile, unique_id: uuid.UUID) -> None:
    """Make a VHDX of it: everything else must be durable."""
    for sequence, offset in enumerate(HEADER_OFFSETS, 1):
        data_write = own_guid(unique_id, "data write")
        header = Header(sequence, data_write, NO_GUID, 0, _LOG[1], _LOG[0])
        file.write(offset, build_header(header, file_write_guid=own_guid(unique_id, "file write")))
    file.write(0, build_identifier(_CREATOR))


def own_guid(unique_id: uuid.UUID, what: str) -> bytes:
    """Return the GUID of one purpose in the file."""
    return uuid.uuid5(unique_id, what).bytes_le
