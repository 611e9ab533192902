"""A folder is held by one process; a file system that knows no locks is another story than a second process."""

import errno
import fcntl
from pathlib import Path

import pytest

from relay.folder import FolderHeld, hold


def test_a_held_folder_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    with hold(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(FolderHeld), hold(folder):
            pass
    with hold(folder):
        pass


def test_file_system_without_locks_is_not_called_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="No locks available"), hold(tmp_path):
        pass
