"""Opening below a folder: no path, link or race leads out of it. Linux only; knows nothing of shares.

openat2(2) with RESOLVE_BENEATH lets the kernel decide, links inside of the folder included. Where a kernel older
than 5.6 or a system call filter has none, each name is opened by itself and no symbolic link is followed at all.
"""

import ctypes
import errno
import os

SYS_OPENAT2 = 437
"""The same number on every architecture (openat2(2))."""

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08

_libc = ctypes.CDLL(None, use_errno=True)
_NO_OPENAT2 = frozenset([errno.ENOSYS, errno.EPERM])


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root_fd: int, path: str, flags: int) -> int:
    """Open `path` below an open folder and return the descriptor.

    Args:
        root_fd: The folder.
        path: Relative; the empty path is the folder itself.
        flags: As for open(2); O_CLOEXEC is added.

    Raises:
        OSError: As open(2); EXDEV or ELOOP if the path leads out of the folder.
    """
    flags |= os.O_CLOEXEC
    how = _OpenHow(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path or ".")
    fd = _libc.syscall(SYS_OPENAT2, root_fd, name, ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return int(fd)
    number = ctypes.get_errno()
    if number in _NO_OPENAT2:
        return open_by_steps(root_fd, path, flags)
    raise OSError(number, os.strerror(number), path)


def open_by_steps(root_fd: int, path: str, flags: int) -> int:
    """Do the same name by name, without following any symbolic link."""
    names = path.split("/") if path else ["."]
    if {"", ".."} & set(names):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    folder = os.dup(root_fd)
    try:
        for name in names[:-1]:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            deeper = os.open(name, step, dir_fd=folder)
            os.close(folder)
            folder = deeper
        return os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
