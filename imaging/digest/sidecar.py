"""The digest manifest beside an image, `NAME.digest`; it never stands beside other content than its own.

No manifest is harmless, a wrong one is not. So the old one goes before the image changes its content, and the new one
comes after; what a power loss leaves is an image with its manifest or with none.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from imaging.digest.builder import DigestBuilder
from imaging.digest.layout import MAGIC, require_size
from imaging.digest.manifest import ImageFacts, write_manifest
from imaging.errors import FileExists
from imaging.filedev import FileDevice, named_error
from imaging.newfile import NewFile, flush_folder

SUFFIX = ".digest"


def manifest_path(image: Path) -> Path:
    """Return where the digest manifest of an image lies."""
    return image.with_name(image.name + SUFFIX)


class Sidecar:
    """The digest manifest of one image: `write`, then `withdraw` the old one, change the image, `commit`.

    As a context manager it leaves no unfinished manifest behind.
    """

    def __init__(self, image: Path, virtual_size: int) -> None:
        """Look whether it can be written.

        Raises:
            FileExists: A file of its name is there and is no digest manifest.
            DiskTooLarge: No manifest takes such a disk.
        """
        require_size(virtual_size)
        self.path = manifest_path(image)
        self._name = image.name
        self._file: NewFile | None = None
        self._require_ours()

    def write(self, digest: DigestBuilder, *, format: str, size: int) -> str:
        """Write the manifest, durably, under another name; return the root.

        Args:
            digest: Complete.
            format: Of the image file, as "vhdx:dynamic".
            size: Bytes of the image file.
        """
        self._file = NewFile(self.path, replace=True)
        return write_manifest(self._file, digest, ImageFacts(self._name, format, size))

    def withdraw(self) -> None:
        """Delete the manifest of what the image was before; durable when this returns."""
        try:
            self._require_ours()
            self.path.unlink()
            flush_folder(self.path.parent)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise named_error(self.path, err) from err

    def commit(self) -> None:
        """Put what was written, if anything, beside the image."""
        if self._file is not None:
            self._file.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.abort()

    def _require_ours(self) -> None:
        """Leave alone what only has the manifest's name."""
        if not self.path.is_symlink() and not self.path.exists():
            return
        if self.path.is_symlink() or not self.path.is_file() or not _is_manifest(self.path):
            raise FileExists(
                f"{self.path}: is there already, and is no digest manifest", path=str(self.path)
            )


def _is_manifest(path: Path) -> bool:
    file = FileDevice(path)
    try:
        found = bytearray(min(len(MAGIC), file.size))
        file.read_into(0, memoryview(found))
        return found == MAGIC
    finally:
        file.close()
