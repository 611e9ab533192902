"""FileDevice: a local file or block device as a BlockDevice; knows no image format."""

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from imaging.bounds import require_behind, require_range
from imaging.errors import (
    AccessDenied,
    DeviceClosed,
    DeviceFull,
    DeviceIOError,
    FileBusy,
    FileMissing,
    ImagingError,
    NotAFile,
    ReadOnlyDevice,
)
from imaging.extent import Extent, Kind, clip, coalesce
from imaging.units import MiB

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
"""fallocate(2): FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, which Python does not offer."""
_NO_PUNCH = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
_ZEROS = memoryview(bytes(1 * MiB))

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class FileId(NamedTuple):
    """Which file was opened, and what tells whether it changed since."""

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int
    is_regular: bool


class FileDevice:
    """One open file; each read goes straight into the caller's buffer, from any thread."""

    def __init__(
        self, path: str | os.PathLike[str], *, writable: bool = False, flags: int = 0
    ) -> None:
        """Open an existing file, for reading only unless asked otherwise; `flags` are added for open(2).

        Raises:
            FileMissing, AccessDenied, NotAFile: By what the path names.
            DeviceIOError: The operating system failed otherwise.
        """
        self.path = Path(path)
        self._writable = writable
        self._fd = _open(self.path, writable=writable, more=flags)
        self._seekable_holes = True
        try:
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as err:
            self.close()
            raise named_error(self.path, err) from err

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened, or truncated."""
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`."""
        fd = self._require_open(offset, len(buffer))
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(fd, [buffer[done:]], offset + done)
            except OSError as err:
                raise named_error(self.path, err, offset + done) from err
            if count == 0:
                raise self._shortened(offset + done)
            done += count

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`."""
        fd = self._require_writable(offset, len(data))
        view, done = memoryview(data), 0
        while done < len(view):
            try:
                done += os.pwrite(fd, view[done:], offset + done)
            except OSError as err:
                raise named_error(self.path, err, offset + done) from err

    def zero(self, offset: int, length: int) -> None:
        """Punch a hole; write zeros where the file system cannot."""
        fd = self._require_writable(offset, length)
        if length == 0:
            return
        if _libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_PUNCH:
            raise named_error(self.path, OSError(number, os.strerror(number)), offset)
        for start in range(offset, offset + length, len(_ZEROS)):
            self.write(start, _ZEROS[: min(len(_ZEROS), offset + length - start)])

    def identify(self) -> FileId:
        """Tell which file this is, and its state now."""
        found = os.fstat(self._require_open(0, 0))
        is_regular = stat.S_ISREG(found.st_mode)
        return FileId(
            self.path, found.st_dev, found.st_ino, self._size, found.st_mtime_ns, is_regular
        )

    def lock(self) -> None:
        """Keep other writers of ours away until it is closed.

        Raises:
            FileBusy: Somebody else writes it.
        """
        try:
            lock_file(self._require_writable(0, 0))
        except BlockingIOError as err:
            raise FileBusy(
                f"{self.path}: another process is writing it", path=str(self.path)
            ) from err
        except OSError as err:
            raise named_error(self.path, err) from err

    def truncate(self, size: int) -> None:
        """Make the file this long; what is added is a hole."""
        fd = self._require_writable(0, 0)
        try:
            os.ftruncate(fd, size)
        except OSError as err:
            raise named_error(self.path, err, size) from err
        self._size = size

    def append(self, offset: int, data: bytes) -> None:
        """Grow, and end with `data`: one write behind the end."""
        self._require_writable(0, 0)
        require_behind(offset, self._size)
        self._size = offset + len(data)
        self.write(offset, data)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window by SEEK_DATA and SEEK_HOLE, one extent at a time."""
        self._require_open(offset, length)
        return coalesce(clip(self._seek_extents(offset, offset + length), offset, length))

    def flush(self) -> None:
        """Call fsync."""
        fd = self._require_writable(0, 0)
        try:
            os.fsync(fd)
        except OSError as err:
            raise named_error(self.path, err) from err

    def close(self) -> None:
        """Close the file; never flushes."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _seek_extents(self, position: int, end: int) -> Iterator[Extent]:
        while position < end:
            data = self._seek(position, os.SEEK_DATA)
            if data > position:
                yield Extent(position, data - position, Kind.HOLE)
            if data < end:
                hole = max(self._seek(data, os.SEEK_HOLE), data + 1)
                yield Extent(data, hole - data, Kind.DATA)
                data = hole
            position = data

    def _seek(self, position: int, whence: int) -> int:
        """Return where data (or a hole) begins at or behind `position`; the file's end if nowhere.

        A file system, or a block device, that cannot tell says "all data".
        """
        fd = self._require_open(position, 0)
        if self._seekable_holes:
            try:
                return os.lseek(fd, position, whence)
            except OSError as err:
                if err.errno == errno.ENXIO:
                    return self._end_of_holes(fd)
                if err.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise named_error(self.path, err, position) from err
                self._seekable_holes = False
        return position if whence == os.SEEK_DATA else self._size

    def _end_of_holes(self, fd: int) -> int:
        """Return the end of the file, unless it moved: the tail of a shortened file is no hole."""
        now = os.fstat(fd).st_size
        if now < self._size:
            raise self._shortened(now)
        return self._size

    def _shortened(self, end: int) -> DeviceIOError:
        return DeviceIOError(
            f"{self.path}: ends at byte {end}, but had {self._size} bytes when it was opened:"
            " somebody shortened it",
            path=str(self.path),
            offset=end,
        )

    def _require_open(self, offset: int, length: int) -> int:
        if self._fd < 0:
            raise DeviceClosed(f"{self.path}: is closed", path=str(self.path))
        require_range(offset, length, self._size)
        return self._fd

    def _require_writable(self, offset: int, length: int) -> int:
        fd = self._require_open(offset, length)
        if not self._writable:
            raise ReadOnlyDevice(f"{self.path}: was opened for reading only", path=str(self.path))
        return fd


def _open(path: Path, *, writable: bool, more: int) -> int:
    # O_NONBLOCK: opening a fifo without a writer would wait for one; regular files ignore it.
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK | more
    try:
        fd = os.open(path, flags, 0o644)
    except OSError as err:
        raise named_error(path, err) from err
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return fd
    os.close(fd)
    raise _not_a_file(path, mode)


def _not_a_file(path: Path, mode: int) -> NotAFile:
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
    }
    kind = names.get(stat.S_IFMT(mode), "no regular file")
    return NotAFile(f"{path}: is {kind}, expected a file or a block device", path=str(path))


def named_error(path: Path, err: OSError, offset: int | None = None) -> ImagingError:
    """Turn an OSError into the ImagingError that names its cause."""
    reason = err.strerror or str(err)
    where = "" if offset is None else f" at byte {offset}"
    fields = {"path": str(path), "errno": err.errno, "offset": offset}
    if err.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileMissing(f"{path}: {reason}", **fields)
    if err.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(f"{path}: {reason}", **fields)
    if err.errno in (errno.EISDIR, errno.ENXIO):
        return NotAFile(f"{path}: {reason}", **fields)
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DeviceFull(f"{path}{where}: {reason}", **fields)
    return DeviceIOError(f"{path}{where}: {reason}", **fields)


def lock_file(fd: int) -> None:
    """Lock an open file against other writers of ours, until it is closed; does nothing where shares know no locks.

    Raises:
        BlockingIOError: Somebody else holds it.
        OSError: The operating system failed otherwise.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as err:
        if err.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a share without locks
            raise
