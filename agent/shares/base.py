"""Share: the plug-in seam for the place on the site where images lie. Blocking calls, made from worker threads;
writing is added by the export stage. Knows nothing about image formats.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from imaging.device import BlockDevice


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What makes one version of one file: if any field differs, the file changed under us.

    Attributes:
        size: File size in bytes.
        write_time_ns: Last write, nanoseconds since 1970 (as precise as the share is).
        change_time_ns: Last change of data or metadata, nanoseconds since 1970.
        file_id: The file system's number of the file; 0 if the share has none.
    """

    size: int
    write_time_ns: int
    change_time_ns: int
    file_id: int


class ShareFile(BlockDevice, Protocol):
    """A file on a share, opened for reading: its bytes as a device, holes as extents.

    While it is open nobody else may write it (share mode READ); a lost connection is reopened and the identity
    compared, a difference raises `share.file-changed`.
    """

    def identity(self) -> FileIdentity:
        """Ask the share (not a cache) for the file's identity now."""
        ...


class Share(Protocol):
    """One connected share, used by one job; nothing is shared between jobs or tenants.

    Paths are relative, with `/` between names; `..`, absolute paths, drive letters, streams (`:`) and empty names
    raise `share.bad-path`. Every method may block and may be called from several threads.
    """

    kind: ClassVar[str]

    def stat(self, path: str) -> FileIdentity:
        """Return the identity of a file; `share.not-found` if there is none."""
        ...

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        ...

    def open_read(self, path: str) -> ShareFile:
        """Open a file so that it cannot change while it is read."""
        ...

    def free_space(self) -> int:
        """Return the bytes that this caller may still write."""
        ...

    def abort(self) -> None:
        """Make every blocked and every later call raise `job.cancelled` quickly. From any thread, never blocks."""
        ...

    def close(self) -> None:
        """Disconnect. May be called twice; open files become unusable."""
        ...
