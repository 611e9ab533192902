"""Siblings: the files beside an image, the only ones that an image may name (parents, extents, data files).

Every reference of every format goes through `bare_name` and `Siblings.open`: names are file names, never paths, URLs or
JSON, and never a symbolic link (CVE-2022-47951, CVE-2024-32498, CVE-2024-4467 were all one such reference).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from imaging.device import BlockDevice
from imaging.errors import ReferenceRefused
from imaging.filedev import FileDevice, FileId

MAX_NAME = 255
_FORBIDDEN = frozenset('/\\:*?"<>|')
"""What a file name cannot hold on a Windows share: separators, drives, schemes, streams, wild cards."""


class Siblings(Protocol):
    """The folder of an image, on this machine or on a share."""

    def open(self, name: str) -> BlockDevice:
        """Open the regular file of this bare name for reading; the caller closes it.

        Raises:
            FileMissing, AccessDenied, NotAFile, ReferenceRefused: By what the name leads to.
        """
        ...


def bare_name(text: str, *, what: str, offset: int | None = None) -> str:
    """Return `text` if it is the plain name of a file, nothing else.

    Args:
        text: As the image says it.
        what: How messages call the reference ("parent", "extent 2").
        offset: Where it stands in the image.

    Raises:
        ReferenceRefused: It leads, or may lead, somewhere else.
    """
    plain = 0 < len(text.encode("utf-8", "replace")) <= MAX_NAME and text not in (".", "..")
    if not plain or not text.isprintable() or _FORBIDDEN & set(text):
        raise ReferenceRefused(
            f"the {what} is {text[:200]!r}, expected the plain name of a file beside the image",
            offset=offset,
            found=text[:200],
        )
    return text


def last_component(path: str) -> str:
    """Return what stands behind the last separator of a Windows or POSIX path."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


class LocalFolder:
    """A folder of this machine.

    Attributes:
        opened: All files that were opened in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened: list[FileId] = []

    def open(self, name: str) -> FileDevice:
        """Open a file; a symbolic link of that name is refused, whatever it leads to."""
        path = self._folder / bare_name(name, what="reference")
        with suppress(OSError):
            if path.is_symlink():
                raise ReferenceRefused(f"{path} is a symbolic link", path=str(path))
        file = FileDevice(path, flags=os.O_NOFOLLOW)
        self.opened.append(file.identify())
        return file
