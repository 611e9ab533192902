"""SMB changes: the requests that shape, rename and delete open files, each one round trip. Raises the library's
errors, knows no retry.

[MS-SMB2] 2.2.31, 2.2.39; [MS-FSCC] 2.3.64 (SET_SPARSE), 2.3.71 (SET_ZERO_DATA), 2.4.11, 2.4.14, 2.4.42.
"""

import struct

from smbprotocol.file_info import FileInformationClass, InfoType
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest
from smbprotocol.open import SMB2SetInfoRequest

from agent.shares.smb.link import Link
from agent.shares.smb.untyped import LibOpen

END_OF_FILE = 20
"""FileEndOfFileInformation."""


def set_sparse(link: Link, handle: LibOpen) -> None:
    """Let what is never written have no storage."""
    _control(link, handle, CtlCode.FSCTL_SET_SPARSE, b"\x01")


def set_zero(link: Link, handle: LibOpen, offset: int, length: int) -> None:
    """Make a range read as zeros; a sparse file gives its storage back."""
    data = struct.pack("<qq", offset, offset + length)
    _control(link, handle, CtlCode.FSCTL_SET_ZERO_DATA, data)


def set_size(link: Link, handle: LibOpen, size: int) -> None:
    """Move the end of a file; what is added is a hole in a sparse file."""
    _set_info(link, handle, END_OF_FILE, struct.pack("<Q", size))


def rename(link: Link, handle: LibOpen, path: str, *, replace: bool) -> None:
    """Give an open file another path on the same share."""
    name = path.replace("/", "\\").encode("utf-16-le")
    data = struct.pack("<B15xI", replace, len(name)) + name
    # Some servers want no less than the structure with the longest name's padding ([MS-FSCC] 2.4.42.2).
    _set_info(link, handle, FileInformationClass.FILE_RENAME_INFORMATION, data.ljust(24, b"\0"))


def delete(link: Link, handle: LibOpen) -> None:
    """Delete a file once it is closed."""
    _set_info(link, handle, FileInformationClass.FILE_DISPOSITION_INFORMATION, b"\x01")


def _control(link: Link, handle: LibOpen, code: int, data: bytes) -> None:
    request = SMB2IOCTLRequest()
    request["ctl_code"] = code
    request["file_id"] = handle.file_id
    request["flags"] = IOCTLFlags.SMB2_0_IOCTL_IS_FSCTL
    request["max_output_response"] = 0
    request["buffer"] = data
    link.ask(request)


def _set_info(link: Link, handle: LibOpen, info_class: int, data: bytes) -> None:
    request = SMB2SetInfoRequest()
    request["info_type"] = InfoType.SMB2_0_INFO_FILE
    request["file_info_class"] = info_class
    request["file_id"] = handle.file_id
    request["buffer"] = data
    link.ask(request)
