"""Local new file: a file on a local share that is being made: imaging's, in an open folder, with the shares' errors."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import AgentError
from agent.shares.errors import (
    AccessDenied,
    AlreadyThere,
    InUse,
    NotAFile,
    NotFound,
    ShareFull,
    ShareRefused,
)
from imaging import errors as imaging
from imaging.newfile import NewFile
from imaging.output import GivenUp

_MEANINGS: tuple[tuple[type[imaging.ImagingError], type[AgentError]], ...] = (
    (imaging.DeviceFull, ShareFull),
    (imaging.FileExists, AlreadyThere),
    (imaging.FileBusy, InUse),
    (imaging.NotAFile, NotAFile),
    (imaging.AccessDenied, AccessDenied),
    (imaging.FileMissing, NotFound),
    (imaging.DeviceIOError, ShareRefused),
)


class LocalNewFile(GivenUp):
    """A file being written (`imaging.output.OutputFile`). Thread-safe.

    Attributes:
        path: What it will be called.
        journal_path: For whoever keeps a journal of it.
    """

    def __init__(
        self,
        folder_fd: int,
        name: str,
        label: Path,
        require_usable: Callable[[], None],
        *,
        job: str,  # noqa: ARG002 - a file that somebody writes is locked here, so one name serves all
        journal: Path,
        replace: bool,
        keep: bool,
    ) -> None:
        """Begin it.

        Args:
            folder_fd: Its folder, opened below the share; closed with the file.
            name: What it will be called there.
            label: How messages call it.
            require_usable: Raises when the share was aborted or closed.
            job: Who writes it.
            journal: Becomes `journal_path`.
            replace: Whether a file of that name may be there.
            keep: Whether what was written before stays.
        """
        self.path, self.journal_path = label, journal
        self._fd = folder_fd
        self._is_over = False
        if not keep:
            journal.unlink(missing_ok=True)  # It must never speak of what is not in the file.
        self._require_usable = require_usable
        try:
            with self._translated():
                self._file = NewFile(
                    Path(f"/proc/self/fd/{folder_fd}", name), replace=replace, keep=keep
                )
        except BaseException:
            os.close(folder_fd)
            raise

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        return self._file.size

    @property
    def inode(self) -> int:
        """What tells it, unfinished, from another one of its name."""
        return self._file.inode

    @property
    def bytes_written(self) -> int:
        """By all writes so far."""
        return self._file.bytes_written

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`; durable only after `flush`."""
        with self._translated():
            self._file.write(offset, data)

    def truncate(self, size: int) -> None:
        """Make the file this long."""
        with self._translated():
            self._file.truncate(size)

    def flush(self) -> None:
        """Make everything written so far survive power loss."""
        with self._translated():
            self._file.flush()

    def commit(self) -> None:
        """Flush and give the file its name; durable when this returns."""
        with self._translated():
            self._file.commit()
            self._is_over = True
        self.journal_path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give it up. May be called twice, and after `commit`."""
        self._is_over = True
        self._file.abort()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what imaging says in the shares' words, with the path that the user knows."""
        self._require_usable()
        if self._is_over:
            raise imaging.DeviceClosed(f"{self.path} is closed", path=str(self.path))
        try:
            yield
        except imaging.ImagingError as err:
            for theirs, ours in _MEANINGS:
                if isinstance(err, theirs):
                    text = str(err).replace(f"/proc/self/fd/{self._fd}", str(self.path.parent))
                    raise ours(text, path=str(self.path)) from err
            raise
