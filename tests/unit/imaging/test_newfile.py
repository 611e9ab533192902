"""NewFile appears whole or not at all, and takes nobody's place unasked."""

import errno
import os

import pytest

from imaging.errors import DeviceFull, DeviceIOError, FileBusy, FileExists, FileMissing, NotAFile
from imaging.newfile import NewFile
from tests.support.folderloss import FolderTrace


def test_a_committed_file_has_its_bytes_and_holes(tmp_path):
    with NewFile(tmp_path / "a") as file:
        file.write(4096, b"data")
        file.truncate(8192)
        assert not (tmp_path / "a").exists()
        file.commit()
    assert (tmp_path / "a").read_bytes() == bytes(4096) + b"data" + bytes(4092)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_was_not_committed_leaves_nothing(tmp_path):
    with NewFile(tmp_path / "a") as file:
        file.write(0, b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExists):
        NewFile(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_came_meanwhile_is_left_alone(tmp_path):
    with NewFile(tmp_path / "a") as file:
        file.write(0, b"new")
        (tmp_path / "a").write_bytes(b"old")
        with pytest.raises(FileExists):
            file.commit()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_it_replaces_when_asked(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with NewFile(tmp_path / "a", replace=True) as file:
        file.write(0, b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
        file.commit()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_partial_file_of_a_killed_run_is_overwritten_but_no_link_followed(tmp_path):
    (tmp_path / "a.partial").write_bytes(b"longer than the new one")
    with NewFile(tmp_path / "a") as file:
        file.write(0, b"new")
        file.commit()
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "b.partial").symlink_to("victim")
    with pytest.raises(Exception, match=r"b\.partial"):
        NewFile(tmp_path / "b")
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_errors_name_the_cause(tmp_path, monkeypatch):
    with pytest.raises(FileMissing):
        NewFile(tmp_path / "nowhere" / "a")

    def full(*_):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwrite", full)
    with NewFile(tmp_path / "a") as file, pytest.raises(DeviceFull):
        file.write(0, b"x")
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_are_not_mixed(tmp_path):
    with NewFile(tmp_path / "a", replace=True) as first:
        first.write(0, b"first")
        with pytest.raises(FileBusy, match="another process"):
            NewFile(tmp_path / "a", replace=True)
        first.commit()
    assert (tmp_path / "a").read_bytes() == b"first"


def test_what_was_committed_while_it_was_opened_is_not_truncated(tmp_path, monkeypatch):
    first = NewFile(tmp_path / "a")
    first.write(0, b"first")
    opened = os.open

    def late(path, *rest):
        fd = opened(path, *rest)
        if str(path).endswith(".partial"):
            monkeypatch.undo()
            first.commit()
        return fd

    monkeypatch.setattr(os, "open", late)
    with NewFile(tmp_path / "a", replace=True) as second:
        second.write(0, b"2")
        assert (tmp_path / "a").read_bytes() == b"first"


def test_a_device_or_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(NotAFile):
            NewFile(tmp_path / name, replace=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_it_counts_what_was_written(tmp_path):
    with NewFile(tmp_path / "a") as file:
        file.write(100, b"abc")
        file.write(0, b"d")
        assert file.bytes_written == 4


def test_a_kept_file_stays_and_is_gone_on_with(tmp_path):
    with NewFile(tmp_path / "a", keep=True) as file:
        file.write(0, b"begun")
        inode = file.inode
    assert (tmp_path / "a.partial").read_bytes() == b"begun"
    (tmp_path / "a.partial.journal").write_bytes(b"what of it is durable")
    with NewFile(tmp_path / "a", keep=True) as file:
        assert (file.size, file.inode) == (5, inode)
        file.write(5, b" and done")
        assert (tmp_path / "a.partial.journal").exists()
        file.commit()
    assert (tmp_path / "a").read_bytes() == b"begun and done"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_not_kept_forgets_the_journal_before_it_forgets_the_data(
    tmp_path, monkeypatch
):
    (tmp_path / "a.partial").write_bytes(b"old")
    (tmp_path / "a.partial.journal").write_bytes(b"speaks of old")
    done = []
    truncate, fsync = os.ftruncate, os.fsync
    monkeypatch.setattr(
        os,
        "ftruncate",
        lambda *a: (done.append((tmp_path / "a.partial.journal").exists()), truncate(*a)),
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("durable"), fsync(fd)))
    with NewFile(tmp_path / "a"):
        assert done == ["durable", False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replace", [False, True])
def test_after_a_power_loss_a_name_has_its_whole_content(tmp_path, monkeypatch, replace):
    path = tmp_path / "a"
    if replace:
        path.write_bytes(b"old")
    trace = FolderTrace(tmp_path)
    with monkeypatch.context() as patched:
        trace.attach(patched)
        with NewFile(path, replace=replace) as file:
            file.write(0, b"new" * 1000)  # the caller need not flush
            file.commit()
    for done, state in trace.states():
        allowed = (trace.initial.get("a"), b"new" * 1000)
        assert state.get("a") in (allowed if done < len(trace.events) else allowed[1:])


def test_giving_up_behind_a_failed_commit_leaves_the_next_writers_file(tmp_path, monkeypatch):
    """The name is free once the file has its own: another writer may begin before the folder is flushed."""
    file = NewFile(tmp_path / "a")
    others = []

    def fail(_):
        others.append(NewFile(tmp_path / "a", replace=True))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("imaging.newfile.flush_folder", fail)
    with pytest.raises(DeviceIOError):
        file.commit()
    file.abort()
    assert (tmp_path / "a.partial").exists()
    others[0].abort()
    assert not (tmp_path / "a.partial").exists()
