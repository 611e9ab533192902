"""The folder of a process: made private on first use, and held by one process at a time.

The kernel holds the lock, so a killed process leaves nothing behind that somebody would have to clean up.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"


class FolderHeld(Exception):
    """Another process holds the folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder while the context lasts.

    Raises:
        FolderHeld: Another process does.
        OSError: It cannot be made, written or locked.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise FolderHeld(str(folder)) from err
        yield
    finally:
        os.close(lock)
