"""Raw images and every other disk that lies in one piece in its file; has no metadata to check."""

from collections.abc import Iterator

from imaging.device import BlockDevice, ResizableDevice
from imaging.errors import InvalidImage
from imaging.extent import Extent
from imaging.formats.base import BaseImage, ImageInfo, WritableImage
from imaging.formats.place import NOWHERE, Place
from imaging.formats.resizing import require_larger
from imaging.units import SECTOR_SIZE


class FlatImage(BaseImage):
    """A disk whose byte 0 is byte 0 of the file; the file's own holes are the disk's."""

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        self._file.read_into(offset, buffer)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._file.extents(offset, length)


def open_raw(file: BlockDevice, place: Place = NOWHERE) -> FlatImage:  # noqa: ARG001
    """Take the whole file for the disk.

    Raises:
        InvalidImage: The file is empty.
    """
    if file.size == 0:
        raise InvalidImage("the file is empty, expected a disk", offset=0)
    warnings: tuple[str, ...] = ()
    if file.size % SECTOR_SIZE:
        warnings = (f"the size, {file.size} bytes, is no multiple of {SECTOR_SIZE}",)
    return FlatImage(file, ImageInfo("raw", "", file.size, file.size, 0, warnings=warnings))


class WritableFlatImage(WritableImage):
    """A disk that is written where it lies, from byte 0 of its file on."""

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        self._file.read_into(offset, buffer)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._file.extents(offset, length)

    def _write(self, offset: int, data: memoryview) -> None:
        self._file.write(offset, data)

    def _zero(self, offset: int, length: int) -> None:
        self._file.zero(offset, length)

    def _flush(self) -> None:
        self._file.flush()


def resize_raw(file: ResizableDevice, size: int) -> None:
    """Make the disk `size` bytes long; what is added reads as zeros. Durable when this returns.

    Raises:
        SizeRefused: It is no larger.
    """
    require_larger(file.size, size, 1)
    file.truncate(size)
    file.flush()


def edit_raw(file: ResizableDevice, place: Place = NOWHERE) -> WritableFlatImage:
    """Take the whole file for the disk, to be written in place.

    Raises:
        InvalidImage: The file is empty.
    """
    return WritableFlatImage(file, open_raw(file, place).info)
