"""Share: the plug-in seam for the place on the site where images lie. Blocking calls, made from worker threads.
Knows nothing about image formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from imaging.device import BlockDevice
from imaging.output import OutputFile


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


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder of a share.

    Attributes:
        name: Without its folder.
        is_folder: Whether there are names below it.
        size: Bytes of the file; 0 for a folder.
        allocated: Bytes of storage that it takes, as far as the share knows.
        write_time_ns: Last write, nanoseconds since 1970.
    """

    name: str
    is_folder: bool
    size: int
    allocated: int
    write_time_ns: int


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

    def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder, sorted by name."""
        ...

    def create(
        self, path: str, *, job: str, journal: Path, replace: bool = False, keep: bool = False
    ) -> OutputFile:
        """Begin a file that appears whole or not at all.

        Args:
            path: What it will be called.
            job: Who writes it: letters, digits and `-`; no two writers of this path at a time have the same.
            journal: Becomes its `journal_path`, on this machine.
            replace: Whether a file of that name may be there.
            keep: What the same job has written before stays, and stays if the file is not committed; else it is
                emptied.

        Raises:
            AlreadyThere: There is such a file, and it may not be replaced.
            InUse: Somebody is writing it.
        """
        ...

    def remove(self, path: str) -> None:
        """Delete a file; `share.not-found` if there is none."""
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
