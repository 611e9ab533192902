"""CountingDevice: a device that counts what is read from it; changes nothing."""

import threading
from collections.abc import Iterator

from imaging.device import BlockDevice
from imaging.errors import DeviceClosed
from imaging.extent import Extent


class CountingDevice:
    """A filter over `base`; closing it leaves the base open.

    Attributes:
        bytes_read: Bytes that `read_into` filled so far.
    """

    def __init__(self, base: BlockDevice) -> None:
        self.bytes_read = 0
        self._base = base
        self._closed = False
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return self._base.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`."""
        self._open().read_into(offset, buffer)
        with self._lock:
            self.bytes_read += len(buffer)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Pass it on."""
        self._open().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Pass it on."""
        self._open().zero(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window as the base does."""
        return self._open().extents(offset, length)

    def flush(self) -> None:
        """Pass it on."""
        self._open().flush()

    def close(self) -> None:
        """Refuse every further call; the base stays open."""
        self._closed = True

    def _open(self) -> BlockDevice:
        if self._closed:
            raise DeviceClosed("the counting device is closed")
        return self._base
