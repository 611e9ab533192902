"""The reserve: disk space held back so that refusals, cancels and results can be written when the disk is full.

One file of real blocks beside the journal. Blocking calls, made from the journal's writer thread.
"""

import contextlib
import os
import shutil
from pathlib import Path

from imaging.units import MiB

SLACK = 8 * MiB
"""Free bytes beyond the reserve before the disk counts as no longer full: no flapping at the edge."""


class Reserve:
    """Takes and releases the space. `held` says which."""

    def __init__(self, path: Path, size: int) -> None:
        """Name the file and its size; nothing is written yet."""
        self._path = path
        self._size = size
        self.held = False

    def take(self) -> bool:
        """Hold the space if the disk has it and some slack; return whether it is held."""
        if self.held or not self._size:
            self.held = True
            return True
        have = self._path.stat().st_size if self._path.exists() else 0
        free = shutil.disk_usage(self._path.parent).free
        if have < self._size and free < self._size - have + SLACK:
            return False
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
                os.fsync(file.fileno())
        except OSError:
            self.release()
            return False
        self.held = True
        return True

    def release(self) -> None:
        """Give the space to the journal."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self.held = False
