"""NewFile: a file that appears whole or not at all. Written as `NAME.partial`, renamed when it is committed."""

import errno
import os
import stat
import threading
from pathlib import Path

from imaging.errors import FileBusy, FileExists, NotAFile
from imaging.filedev import lock_file, named_error
from imaging.noreplace import name_file
from imaging.output import GivenUp

PARTIAL = ".partial"
JOURNAL = ".partial.journal"
"""Beside a partial file that another process may go on with (`imaging.convert.journal`): what of it is durable."""


_NO_FOLDER_SYNC = frozenset([errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP])


class NewFile(GivenUp):
    """A file being written, from any number of threads at distinct places; grows as it is written.

    As a context manager it is given up at the end unless it was committed: nothing is left behind.

    Attributes:
        bytes_written: By all writes so far.
        journal_path: Of its journal; whoever keeps it may write one.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, replace: bool = False, keep: bool = False
    ) -> None:
        """Begin the file.

        Args:
            path: What it will be called.
            replace: Whether a file of that name may be there.
            keep: A partial file that is there stays as it is, and this one stays if it is not committed. Else it is
                overwritten, its journal deleted before that.

        Raises:
            FileExists: `path` is there and may not be replaced.
            FileBusy: Another process is writing it.
            NotAFile: `path` is a device, a folder or the like.
            DeviceError: The operating system refused it.
        """
        self.path = Path(path)
        self.bytes_written = 0
        self._lock = threading.Lock()
        self._partial = self.path.with_name(self.path.name + PARTIAL)
        self.journal_path = self.path.with_name(self.path.name + JOURNAL)
        self._replace = replace
        self._keep = keep
        self._require_free()
        try:
            self._fd = self._open()
        except OSError as err:
            raise named_error(self._partial, err) from err

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`; durable only after `flush`."""
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], offset + done)
        except OSError as err:
            raise named_error(self._partial, err, offset + done) from err
        with self._lock:
            self.bytes_written += done

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        return os.fstat(self._fd).st_size

    @property
    def inode(self) -> int:
        """What tells the partial file from another one of its name."""
        return os.fstat(self._fd).st_ino

    def truncate(self, size: int) -> None:
        """Make the file this long; what was never written is a hole."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as err:
            raise named_error(self._partial, err, size) from err

    def flush(self) -> None:
        """Make everything written so far survive power loss."""
        try:
            os.fsync(self._fd)
        except OSError as err:
            raise named_error(self._partial, err) from err

    def commit(self) -> None:
        """Flush and give the file its name; durable when this returns.

        Raises:
            FileExists: Somebody made a file of that name meanwhile; it is left alone.
        """
        self.flush()
        try:
            if self._replace:
                self._partial.replace(self.path)
            else:
                name_file(self._partial, self.path)
            flush_folder(self.path.parent)
            self.journal_path.unlink(missing_ok=True)
        except FileExistsError as err:
            raise self._exists() from err
        except OSError as err:
            raise named_error(self.path, err) from err
        self._close()

    def abort(self) -> None:
        """Give it up: the partial file is deleted, unless it is to be kept. May be called twice, and after `commit`."""
        if self._fd >= 0:
            # While it is locked: the next writer's has the same name, and has it already if this one was committed.
            if not self._keep and self._is_partial(self._fd):
                self._partial.unlink(missing_ok=True)
            self._close()

    def _open(self) -> int:
        """Open the partial file, ours alone: two writers of one file would commit a mixture of both."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            fd = os.open(self._partial, flags, 0o644)
            try:
                lock_file(fd)
                if not self._is_partial(fd):  # committed, or given up, since it was opened
                    os.close(fd)
                    continue
                if not self._keep:
                    self._forget_journal()
                    os.ftruncate(fd, 0)
            except BlockingIOError as err:
                os.close(fd)
                raise self._busy() from err
            except BaseException:
                os.close(fd)
                raise
            return fd

    def _forget_journal(self) -> None:
        """Delete the journal, durably: it must never speak of what is not in the file."""
        try:
            self.journal_path.unlink()
        except FileNotFoundError:
            return
        flush_folder(self.path.parent)

    def _is_partial(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self._partial))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _require_free(self) -> None:
        if not self._replace and os.path.lexists(self.path):
            raise self._exists()
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise NotAFile(f"{self.path}: is no regular file", path=str(self.path))

    def _busy(self) -> FileBusy:
        return FileBusy(f"{self._partial}: another process is writing it", path=str(self._partial))

    def _exists(self) -> FileExists:
        return FileExists(f"{self.path}: is there already", path=str(self.path))


def flush_folder(path: Path) -> None:
    """Make the names in a folder survive power loss.

    A mounted SMB share of Linux before 4.17 knows no fsync of folders; its names are the server's, changed when the
    server answers, so there is nothing to flush here.

    Raises:
        OSError: The operating system refused it.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(folder)
