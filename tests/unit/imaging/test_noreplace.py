"""A file gets its name whatever the file system can do, and never takes the name of another."""

import ctypes
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from imaging.newfile import NewFile, flush_folder
from imaging.noreplace import name_file


def _no_links(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def _no_flags(*_: object) -> int:
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.fixture(params=["links", "renameat2", "neither"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file `new` on a file system that can do so much."""
    if request.param != "links":
        monkeypatch.setattr(os, "link", _no_links)
    if request.param == "neither":
        fake = SimpleNamespace(renameat2=_no_flags)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: fake)
    (tmp_path / "new").write_bytes(b"new")
    return tmp_path


def test_a_free_name_is_taken(folder: Path) -> None:
    name_file(folder / "new", folder / "name")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"name": b"new"}


def test_a_taken_name_is_left_alone(folder: Path) -> None:
    (folder / "name").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        name_file(folder / "new", folder / "name")
    assert (folder / "name").read_bytes() == b"old"
    assert (folder / "new").read_bytes() == b"new"


def test_a_link_that_leads_nowhere_takes_a_name_too(folder: Path) -> None:
    (folder / "name").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        name_file(folder / "new", folder / "name")


def test_a_missing_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        name_file(folder / "gone", folder / "name")


def test_a_new_file_is_committed_without_hard_links(folder: Path) -> None:
    with NewFile(folder / "made") as file:
        file.write(0, b"made")
        file.commit()
    assert (folder / "made").read_bytes() == b"made"
    assert not (folder / "made.partial").exists()


def test_a_folder_that_knows_no_fsync_is_flushed_by_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    flush_folder(tmp_path)


def test_a_folder_that_cannot_be_flushed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        flush_folder(tmp_path)
