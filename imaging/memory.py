"""MemoryDevice: the reference BlockDevice, a buffer in memory with holes; not for big disks."""

from collections.abc import Iterator

from imaging.bounds import require_behind, require_range
from imaging.errors import DeviceClosed, ReadOnlyDevice
from imaging.extent import Extent, Kind, clip, coalesce
from imaging.units import KiB

_PAGE = 4 * KiB
"""Granularity of holes, that of ext4 and XFS."""


class MemoryDevice:
    """A device over a bytearray; pages that were never written, or zeroed whole, are holes."""

    def __init__(self, content: bytes | int, *, read_only: bool = False) -> None:
        """Make a device with `content`, or with so many bytes of holes if it is a number."""
        self._bytes = bytearray(content)
        pages = -(-len(self._bytes) // _PAGE)
        self._is_data = bytearray(pages) if isinstance(content, int) else bytearray(b"\1" * pages)
        self._read_only = read_only
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return len(self._bytes)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`."""
        self._require_open(offset, len(buffer))
        with memoryview(self._bytes) as source:
            buffer[:] = source[offset : offset + len(buffer)]

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`."""
        self._require_writable(offset, len(data))
        self._bytes[offset : offset + len(data)] = data
        for page in range(offset // _PAGE, -(-(offset + len(data)) // _PAGE)):
            self._is_data[page] = 1

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros; pages inside it become holes."""
        self._require_writable(offset, length)
        end = offset + length
        self._bytes[offset:end] = bytes(length)
        last = len(self._is_data) if end == self.size else end // _PAGE
        for page in range(-(-offset // _PAGE), last):
            self._is_data[page] = 0

    def truncate(self, size: int) -> None:
        """Cut the end off, or add a hole."""
        self._require_writable(0, 0)
        keep = min(size, self.size)
        pages = -(-size // _PAGE)
        del self._bytes[keep:], self._is_data[-(-keep // _PAGE) :]
        self._bytes.extend(bytes(size - keep))
        self._is_data.extend(bytes(pages - len(self._is_data)))

    def append(self, offset: int, data: bytes) -> None:
        """Grow, and end with `data`."""
        require_behind(offset, self.size)
        self.truncate(offset + len(data))
        self.write(offset, data)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window by pages."""
        self._require_open(offset, length)
        return coalesce(clip(self._pages(offset, length), offset, length))

    def flush(self) -> None:
        """Do nothing: memory survives no power loss."""
        self._require_writable(0, 0)

    def close(self) -> None:
        """Refuse every further call."""
        self._closed = True

    def _pages(self, offset: int, length: int) -> Iterator[Extent]:
        for page in range(offset // _PAGE, -(-(offset + length) // _PAGE)):
            start = page * _PAGE
            kind = Kind.DATA if self._is_data[page] else Kind.HOLE
            yield Extent(start, min(_PAGE, self.size - start), kind)

    def _require_open(self, offset: int, length: int) -> None:
        if self._closed:
            raise DeviceClosed("the memory device is closed")
        require_range(offset, length, self.size)

    def _require_writable(self, offset: int, length: int) -> None:
        self._require_open(offset, length)
        if self._read_only:
            raise ReadOnlyDevice("the memory device is read-only")
