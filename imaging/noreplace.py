"""Give a file its name unless the name is taken: one step where the file system has one. Linux only."""

import ctypes
import errno
import os
from pathlib import Path

RENAME_NOREPLACE = 1
"""renameat2(2)."""

_AT_FDCWD = -100
_NO_LINKS = frozenset([errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
"""How file systems without hard links say so (FAT, exFAT, some network file systems)."""
_NO_FLAGS = frozenset([errno.EINVAL, errno.ENOSYS])


def name_file(unnamed: Path, name: Path) -> None:
    """Rename `unnamed` to `name`; both are in one folder.

    A hard link, else renameat2; a file system that has neither lets somebody slip in between look and rename.

    Raises:
        FileExistsError: The name is taken; both files are left alone.
        OSError: The operating system refused it.
    """
    try:
        os.link(unnamed, name)
    except FileExistsError:
        raise
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        _rename(unnamed, name)
    else:
        unnamed.unlink()


def _rename(unnamed: Path, name: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    number = errno.ENOSYS
    if renameat2 is not None:
        places = _AT_FDCWD, os.fsencode(unnamed), _AT_FDCWD, os.fsencode(name)
        if renameat2(*places, RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
    if number not in _NO_FLAGS:
        raise OSError(number, os.strerror(number), str(name))
    if os.path.lexists(name):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
    unnamed.rename(name)
