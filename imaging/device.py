"""BlockDevice: the one seam for disk bytes; knows no event loop and no network.

A file on a share, a virtual disk inside an image, a filter and a memory buffer all look like this:
synchronous and positioned.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from imaging.extent import Extent


@runtime_checkable
class BlockDevice(Protocol):
    """A readable (and perhaps writable) array of bytes.

    Contract for every implementation:
    * `read_into` fills the whole buffer or raises; there are no short reads. A range that is not
      inside [0, size) raises `OutOfRange`; an empty one at [0, size] is a no-op.
    * `read_into`, `extents` and `size` may be called from several threads at once; writes need one
      writer.
    * The caller owns every buffer; an implementation keeps no reference to it after the call.
    * After `close` every call but `close` raises `DeviceClosed`; `close` may be called
      twice and never flushes.
    * A read-only device raises `ReadOnlyDevice` from `write`, `zero` and `flush`.
    """

    @property
    def size(self) -> int:
        """Bytes of the device (for a disk image: the virtual size)."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`. Blocking."""
        ...

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`. Blocking; durable only after `flush`."""
        ...

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, as a hole where the device can."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window (offset, length) in order, without gaps, lazily.

        ZERO and HOLE only where it is certain; DATA may turn out to be zeros.
        """
        ...

    def flush(self) -> None:
        """Make everything written so far survive power loss."""
        ...

    def close(self) -> None:
        """Release what the device holds."""
        ...


class ResizableDevice(BlockDevice, Protocol):
    """A device whose end can be moved: the file that an image written in place lies in."""

    def truncate(self, size: int) -> None:
        """Make the device `size` bytes long: cut its end off, or add zeros as a hole.

        Like a write it is durable only after `flush`.
        """
        ...

    def append(self, offset: int, data: bytes) -> None:
        """Write `data` at the end or behind it, in one step: the device ends with it; what lies between is a hole.

        A sector of 512 bytes at a multiple of 512 comes whole or not at all, should the power fail before `flush`.
        """
        ...


def read_bytes(device: BlockDevice, offset: int, length: int) -> bytes:
    """Return `length` bytes at `offset`; for headers and tests, not for the copy pipeline."""
    buffer = bytearray(length)
    if length:
        device.read_into(offset, memoryview(buffer))
    return bytes(buffer)
