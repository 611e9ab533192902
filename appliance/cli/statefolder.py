"""Where the command line keeps what it needs to go on with a copy: one journal a copy, of this user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.shares.errors import InUse
from imaging.errors import FileBusy
from imaging.filedev import FileDevice

PERSONAL = Path(".local/state/imageport/copies")
"""Below the home."""


@contextmanager
def locked_journal(job: str) -> Iterator[Path]:
    """Return the path of the journal of a copy, ours alone on this machine; makes its folder.

    Raises:
        InUse: The same copy is being made already.
    """
    folder = Path.home() / PERSONAL
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileDevice(folder / f"{job}.lock", writable=True, flags=os.O_CREAT | os.O_NOFOLLOW)
    try:
        lock.lock()
    except FileBusy as err:
        lock.close()
        raise InUse(f"the same copy is being made by another process ({lock.path})") from err
    journal = folder / f"{job}.journal"
    try:
        yield journal
    finally:
        if not journal.exists():
            lock.path.unlink(missing_ok=True)
        lock.close()
