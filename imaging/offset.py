"""OffsetDevice: a window over another device, as a device of its own; copies nothing and checks no content."""

from collections.abc import Iterator

from imaging.bounds import require_range
from imaging.device import BlockDevice
from imaging.errors import DeviceClosed
from imaging.extent import Extent, clip


class OffsetDevice:
    """`size` bytes of `base` from `offset` on. Closing it leaves the base open."""

    def __init__(self, base: BlockDevice, offset: int, size: int) -> None:
        """Open the window.

        Raises:
            OutOfRange: It is not inside the base.
        """
        require_range(offset, size, base.size)
        self._base = base
        self._offset = offset
        self._size = size
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of the window."""
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset` of the window."""
        self._require_open(offset, len(buffer))
        self._base.read_into(self._offset + offset, buffer)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset` of the window."""
        self._require_open(offset, len(data))
        self._base.write(self._offset + offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Make a range of the window read as zeros."""
        self._require_open(offset, length)
        self._base.zero(self._offset + offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe a range of the window as the base does."""
        self._require_open(offset, length)
        start = self._offset + offset
        return self._shifted(clip(self._base.extents(start, length), start, length))

    def flush(self) -> None:
        """Flush the base, all of it."""
        self._require_open(0, 0)
        self._base.flush()

    def close(self) -> None:
        """Refuse every further call; the base stays open."""
        self._closed = True

    def _shifted(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        for extent in extents:
            yield Extent(extent.offset - self._offset, extent.length, extent.kind)

    def _require_open(self, offset: int, length: int) -> None:
        if self._closed:
            raise DeviceClosed("the window is closed")
        require_range(offset, length, self._size)
