"""SMB changes: the requests that make, shape, rename and delete files, each one round trip. Raises the library's
errors, knows no retry.

[MS-SMB2] 2.2.13, 2.2.31, 2.2.39; [MS-FSCC] 2.3.64 (SET_SPARSE), 2.3.71 (SET_ZERO_DATA), 2.4.11, 2.4.14, 2.4.42.
"""

import struct
from enum import Enum

from smbprotocol.file_info import FileInformationClass, InfoType
from smbprotocol.ioctl import CtlCode, IOCTLFlags, SMB2IOCTLRequest
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
    SMB2SetInfoRequest,
)

from agent.shares.smb.link import Link
from agent.shares.smb.untyped import LibOpen

WRITE_ACCESS = (
    FilePipePrinterAccessMask.FILE_READ_DATA
    | FilePipePrinterAccessMask.FILE_WRITE_DATA
    | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
    | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES
)
END_OF_FILE = 20
"""FileEndOfFileInformation."""

_ALL = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE


class Begin(Enum):
    """What opening a file for writing does about one that is there, or is not."""

    EMPTY = CreateDisposition.FILE_OVERWRITE_IF
    KEEP = CreateDisposition.FILE_OPEN_IF
    EXISTING = CreateDisposition.FILE_OPEN


def open_part(link: Link, path: str, begin: Begin) -> LibOpen:
    """Open a file that is being made.

    Others may read and write it: our own handle of a connection that broke can be there for a while yet. It has a
    name of its own for each job, and no program but ours knows what to do with it.
    """
    handle = Open(link.tree, path.replace("/", "\\"))
    handle.create(
        ImpersonationLevel.Impersonation,
        WRITE_ACCESS,
        0,
        ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE,
        begin.value,
        CreateOptions.FILE_NON_DIRECTORY_FILE,
    )
    return handle


def open_for_rename(link: Link, path: str) -> LibOpen:
    """Open a finished file to rename or delete it."""
    handle = Open(link.tree, path.replace("/", "\\"))
    handle.create(
        ImpersonationLevel.Impersonation,
        WRITE_ACCESS | FilePipePrinterAccessMask.DELETE,
        0,
        _ALL,
        CreateDisposition.FILE_OPEN,
        CreateOptions.FILE_NON_DIRECTORY_FILE,
    )
    return handle


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
