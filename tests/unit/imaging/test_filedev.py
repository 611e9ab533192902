"""FileDevice: what it opens, how errors are named, holes, and a file that shrinks while it is read."""

import errno
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import AccessDenied, DeviceIOError, FileMissing, NotAFile
from imaging.extent import Extent, Kind
from imaging.filedev import FileDevice
from tests.support.disks import KiB, MiB, pattern, write_sparse


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    with closing(listener):
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", Path(os.devnull)):
            with pytest.raises(NotAFile, match=path.name):
                FileDevice(path)


@pytest.mark.parametrize("writable", [False, True])
def test_a_missing_file_is_not_made(tmp_path: Path, writable: bool) -> None:
    for path in (tmp_path / "none", tmp_path / "none" / "deeper"):
        with pytest.raises(FileMissing) as caught:
            FileDevice(path, writable=writable)
        assert caught.value.exit_code == 66
    assert list(tmp_path.iterdir()) == []


def test_a_file_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileMissing):
        FileDevice(tmp_path / "file" / "below")


def test_a_forbidden_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AccessDenied) as caught:
        FileDevice(tmp_path / "secret")
    assert caught.value.exit_code == 77


def test_reading_needs_no_write_permission(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x")
    path.chmod(stat.S_IRUSR)
    with closing(FileDevice(path)) as file:
        assert read_bytes(file, 0, 1) == b"x"


def test_holes_are_told_and_punched(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "disk", 4 * MiB, {MiB: pattern(MiB)})
    with closing(FileDevice(path, writable=True)) as file:
        if [extent.kind for extent in file.extents(0, 4 * MiB)] == [Kind.DATA]:
            pytest.skip("this file system does not tell holes")
        assert list(file.extents(0, 4 * MiB)) == [
            Extent(0, MiB, Kind.HOLE),
            Extent(MiB, MiB, Kind.DATA),
            Extent(2 * MiB, 2 * MiB, Kind.HOLE),
        ]
        assert list(file.extents(MiB + 5, 10)) == [Extent(MiB + 5, 10, Kind.DATA)]
        file.zero(MiB, 512 * KiB)
        assert next(file.extents(0, 4 * MiB)) == Extent(0, MiB + 512 * KiB, Kind.HOLE)
    assert path.stat().st_size == 4 * MiB


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_tell_holes_has_only_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = write_sparse(tmp_path / "disk", MiB, {})
    real = os.lseek

    def lseek(fd: int, position: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(code, os.strerror(code))
        return real(fd, position, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    with closing(FileDevice(path)) as file:
        assert list(file.extents(100, 1000)) == [Extent(100, 1000, Kind.DATA)]


def test_a_file_that_shrank_is_an_error_and_never_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(pattern(MiB))
    with closing(FileDevice(path)) as file:
        os.truncate(path, 512 * KiB)
        with pytest.raises(DeviceIOError, match="somebody shortened it"):
            read_bytes(file, 512 * KiB - 1, 2)
        with pytest.raises(DeviceIOError, match="somebody shortened it"):
            list(file.extents(0, MiB))
        assert read_bytes(file, 0, 10) == pattern(10)


def test_a_failed_read_names_file_and_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(pattern(MiB))

    def preadv(*_args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with closing(FileDevice(path)) as file:
        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(DeviceIOError, match="disk at byte 4096: Input/output error") as caught:
            read_bytes(file, 4096, 512)
    assert caught.value.retryable


def test_short_reads_and_writes_of_the_system_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(10_000))
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(
        os, "preadv", lambda fd, bufs, at: preadv(fd, [memoryview(bufs[0])[:777]], at)
    )
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, memoryview(data)[:333], at))
    with closing(FileDevice(path, writable=True)) as file:
        file.write(5, pattern(9000))
        assert read_bytes(file, 0, 10_000) == bytes(5) + pattern(9000) + bytes(995)
