"""Local share: a folder of this machine as a share; the reference plug-in. Never leaves its folder."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from agent.errors import AgentError, Cancelled
from agent.shares.base import Entry, FileIdentity
from agent.shares.beneath import open_beneath
from agent.shares.errors import (
    AccessDenied,
    BadPath,
    NoSuchShare,
    NotAFile,
    NotFound,
    ShareClosed,
    ShareRefused,
)
from agent.shares.identity import require_unchanged
from agent.shares.localnew import LocalNewFile
from agent.shares.paths import normalise
from imaging.errors import DeviceIOError
from imaging.filedev import FileDevice

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NONBLOCK
"""O_NONBLOCK: opening a pipe must not wait for a writer; plain files ignore it."""

_MEANINGS: dict[int, tuple[type[AgentError], str]] = {
    errno.ENOENT: (NotFound, "no such file"),
    errno.ENOTDIR: (NotFound, "a part of the path is no folder"),
    errno.EACCES: (AccessDenied, "access denied"),
    errno.EPERM: (AccessDenied, "access denied"),
    errno.EXDEV: (BadPath, "a link leads out of the share"),
    errno.ELOOP: (BadPath, "a link is not followed"),
    errno.ENAMETOOLONG: (BadPath, "a name is too long"),
}


class LocalFile(FileDevice):
    """A file below the share, read-only. The operating system lets others write it, so a change shows only in
    `identity`, or as `share.file-changed` when a read meets the new end.
    """

    def __init__(self, fd: int, label: Path, require_usable: Callable[[], None]) -> None:
        """Take a file that is open already.

        Args:
            fd: Opened below the share; the caller closes it.
            label: How messages call the file.
            require_usable: Raises when the share was aborted or closed.
        """
        super().__init__(f"/proc/self/fd/{fd}")
        self.path = label
        self._require_usable = require_usable
        self._first = self.identity()

    def identity(self) -> FileIdentity:
        """Ask the file system for the file's identity now."""
        return _identity(os.fstat(self._require_open(0, 0)))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer, unless the share was aborted."""
        self._require_usable()
        try:
            super().read_into(offset, buffer)
        except DeviceIOError as err:
            require_unchanged(str(self.path), self._first, self.identity())
            raise ShareRefused(f"reading {self.path} failed: {err}") from err


class LocalShare:
    """A folder as a share. Thread-safe."""

    kind: ClassVar[str] = "local"

    def __init__(self, root: Path | str) -> None:
        """Open the folder.

        Args:
            root: The folder; it may be a link itself.

        Raises:
            NoSuchShare: There is no such folder.
            AccessDenied: It may not be read.
        """
        self._root = Path(root)
        self._aborted = threading.Event()
        try:
            self._fd = os.open(self._root, _FOLDER | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise NoSuchShare(f"{self._root} is no folder", share=str(self._root)) from err
        except OSError as err:
            raise _meaning(err, self._root) from err

    def stat(self, path: str) -> FileIdentity:
        """Return the identity of a file."""
        fd = self._open(path)
        try:
            return _identity(os.fstat(fd))
        finally:
            os.close(fd)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; the empty path is the share's own folder."""
        return [entry.name for entry in self.entries(path)]

    def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in a folder, sorted by name."""
        self._require_usable()
        folder = self._root / normalise(path, allow_root=True)
        try:
            fd = open_beneath(self._fd, path, _FOLDER)
        except NotADirectoryError as err:
            raise NotAFile(f"{folder} is no folder", path=path) from err
        except OSError as err:
            raise _meaning(err, folder) from err
        try:
            names = sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor, not of a path
            return [_entry(name, os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in names]
        finally:
            os.close(fd)

    def create(
        self, path: str, *, job: str, journal: Path, replace: bool = False, keep: bool = False
    ) -> LocalNewFile:
        """Begin a file."""
        self._require_usable()
        folder, _, name = normalise(path).rpartition("/")
        try:
            fd = open_beneath(self._fd, folder, _FOLDER)
        except OSError as err:
            raise _meaning(err, self._root / path) from err
        return LocalNewFile(
            fd, name, self._root / path, self._require_usable,
            job=job, journal=journal, replace=replace, keep=keep,
        )  # fmt: skip

    def remove(self, path: str) -> None:
        """Delete a file."""
        self._require_usable()
        folder, _, name = normalise(path).rpartition("/")
        os.close(self._open(path))  # Tells what is no plain file.
        try:
            fd = open_beneath(self._fd, folder, _FOLDER)
            try:
                os.unlink(name, dir_fd=fd)
            finally:
                os.close(fd)
        except OSError as err:
            raise _meaning(err, self._root / path) from err

    def open_read(self, path: str) -> LocalFile:
        """Open a file for reading."""
        fd = self._open(path)
        try:
            return LocalFile(fd, self._root / path, self._require_usable)
        finally:
            os.close(fd)

    def free_space(self) -> int:
        """Return the bytes that this process may still write."""
        self._require_usable()
        volume = os.fstatvfs(self._fd)
        return volume.f_bavail * volume.f_frsize

    def abort(self) -> None:
        """Make every later call raise; local reads do not block for long."""
        self._aborted.set()

    def close(self) -> None:
        """Let go of the folder."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self, path: str) -> int:
        """Open a plain file below the folder."""
        self._require_usable()
        file = self._root / normalise(path)
        try:
            fd = open_beneath(self._fd, path, _FILE)
        except OSError as err:
            raise _meaning(err, file) from err
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotAFile(f"{file} is no plain file", path=path)
        return fd

    def _require_usable(self) -> None:
        if self._aborted.is_set():
            raise Cancelled(f"the work on {self._root} was cancelled")
        if self._fd < 0:
            raise ShareClosed(f"{self._root} was used after it was closed")


def _entry(name: str, found: os.stat_result) -> Entry:
    is_folder = stat.S_ISDIR(found.st_mode)
    size, allocated = (0, 0) if is_folder else (found.st_size, found.st_blocks * 512)
    return Entry(name, is_folder, size, allocated, found.st_mtime_ns)


def _identity(found: os.stat_result) -> FileIdentity:
    return FileIdentity(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _meaning(err: OSError, path: Path) -> AgentError:
    cls, why = _MEANINGS.get(err.errno or 0, (ShareRefused, err.strerror or "failed"))
    return cls(f"{path}: {why}", path=str(path))


PLUGIN = LocalShare
