"""SMB calls: what is asked about an open file or its volume, each one round trip. Knows no retry.

[MS-SMB2] 2.2.31, 2.2.33, 2.2.37; [MS-FSCC] 2.3.48, 2.4.2, 2.5.4.
"""

import struct

from smbprotocol.file_info import FileInformationClass, InfoType
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest, SMB2IOCTLResponse
from smbprotocol.open import SMB2QueryInfoRequest, SMB2QueryInfoResponse

from agent.shares.base import FileIdentity
from agent.shares.smb.link import METADATA_BYTES, Link
from agent.shares.smb.times import nanoseconds
from agent.shares.smb.untyped import LibOpen

FS_FULL_SIZE = 7
"""FileFsFullSizeInformation: its second field counts what this caller may still use, quota included."""

_ALL_INFO = struct.Struct("<16xQQ4x4x8xQ4xBB2xQ")
_FULL_SIZE = struct.Struct("<QQQII")
_RANGE = struct.Struct("<qq")


def query_identity(link: Link, handle: LibOpen) -> FileIdentity:
    """Ask for size, times and number of an open file (FileAllInformation, [MS-FSCC] 2.4.2)."""
    info = _query_info(
        link, handle, InfoType.SMB2_0_INFO_FILE, FileInformationClass.FILE_ALL_INFORMATION
    )
    written, changed, size, _, _, number = _ALL_INFO.unpack_from(info)
    return FileIdentity(size, nanoseconds(written), nanoseconds(changed), number)


def free_space(link: Link, handle: LibOpen) -> int:
    """Return the bytes that this caller may still write to the volume of an open folder."""
    info = _query_info(link, handle, InfoType.SMB2_0_INFO_FILESYSTEM, FS_FULL_SIZE)
    _, free_units, _, sectors, sector_size = _FULL_SIZE.unpack_from(info)
    return int(free_units * sectors * sector_size)


def allocated_ranges(
    link: Link, handle: LibOpen, offset: int, length: int
) -> list[tuple[int, int]]:
    """Return the (offset, length) ranges of a window that have storage ([MS-FSCC] 2.3.48)."""
    request = SMB2IOCTLRequest()
    request["ctl_code"] = CtlCode.FSCTL_QUERY_ALLOCATED_RANGES
    request["file_id"] = handle.file_id
    request["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
    request["max_output_response"] = METADATA_BYTES
    request["buffer"] = _RANGE.pack(offset, length)
    response = SMB2IOCTLResponse()
    response.unpack(link.ask(request)["data"].get_value())
    ranges = response["buffer"].get_value()
    return list(_RANGE.iter_unpack(ranges[: len(ranges) // _RANGE.size * _RANGE.size]))


def _query_info(link: Link, handle: LibOpen, info_type: int, info_class: int) -> bytes:
    request = SMB2QueryInfoRequest()
    request["info_type"] = info_type
    request["file_info_class"] = info_class
    request["output_buffer_length"] = METADATA_BYTES
    request["file_id"] = handle.file_id
    response = SMB2QueryInfoResponse()
    response.unpack(link.ask(request)["data"].get_value())
    return bytes(response["buffer"].get_value())
