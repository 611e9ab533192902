"""SMB opening: every way in which we open a file or a folder: who else may use it meanwhile is half of its meaning.

Never an oplock or a lease, so that there is no break to answer. Raises the library's errors, knows no retry.
[MS-SMB2] 2.2.13.
"""

from enum import Enum

from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
)

from agent.shares.smb.link import Link
from agent.shares.smb.translate import WIRE_ERRORS
from agent.shares.smb.untyped import LibOpen

_ATTRIBUTES = FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES
_READ = FilePipePrinterAccessMask.FILE_READ_DATA | _ATTRIBUTES
_WRITE = (
    _READ
    | FilePipePrinterAccessMask.FILE_WRITE_DATA
    | FilePipePrinterAccessMask.FILE_WRITE_ATTRIBUTES
)
_WRITERS = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE
_EVERYBODY = _WRITERS | ShareAccess.FILE_SHARE_DELETE


class Begin(Enum):
    """What opening a file for writing does about one that is there, or is not."""

    EMPTY = CreateDisposition.FILE_OVERWRITE_IF
    KEEP = CreateDisposition.FILE_OPEN_IF
    EXISTING = CreateDisposition.FILE_OPEN


def open_file(link: Link, path: str) -> LibOpen:
    """Open a file for reading so that nobody can write it meanwhile."""
    return _open(link, path, _READ, ShareAccess.FILE_SHARE_READ)


def open_folder(link: Link, path: str) -> LibOpen:
    """Open a folder to list it or to ask about its volume; disturbs nobody."""
    return _open(link, path, _READ, _EVERYBODY, is_folder=True)


def open_attributes(link: Link, path: str) -> LibOpen:
    """Open a file only to ask about it; works while others write it."""
    return _open(link, path, _ATTRIBUTES, _EVERYBODY)


def open_part(link: Link, path: str, begin: Begin) -> LibOpen:
    """Open a file that is being made.

    Others may read and write it: our own handle of a connection that broke can be there for a while yet. It has a
    name of its own for each job, and no program but ours knows what to do with it.
    """
    return _open(link, path, _WRITE, _WRITERS, begin)


def open_for_rename(link: Link, path: str) -> LibOpen:
    """Open a finished file to rename, flush or delete it."""
    return _open(link, path, _WRITE | FilePipePrinterAccessMask.DELETE, _EVERYBODY)


def close(link: Link, handle: LibOpen) -> None:
    """Close a handle if its link still lives; else the server has dropped it, or will."""
    if link.alive:
        try:
            handle.close()
        except WIRE_ERRORS:
            link.connection.cut()


def _open(
    link: Link,
    path: str,
    access: int,
    others: int,
    begin: Begin = Begin.EXISTING,
    *,
    is_folder: bool = False,
) -> LibOpen:
    handle = Open(link.tree, path.replace("/", "\\"))
    kind = CreateOptions.FILE_DIRECTORY_FILE if is_folder else CreateOptions.FILE_NON_DIRECTORY_FILE
    handle.create(ImpersonationLevel.Impersonation, access, 0, others, begin.value, kind)
    return handle
