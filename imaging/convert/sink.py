"""The two ways of writing a disk that `convert` knows: at any place, or in order. Writes nothing itself."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class RandomSink(Protocol):
    """A disk being written at any place, by several threads at once."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes that are not all zeros.

        A 512 KiB digest block (or less at the disk's end, or the data parts of one) at a time; no place is written
        twice.
        """
        ...

    def finish(self) -> None:
        """Write what makes an image of it and flush; from one thread, when all writes have returned.

        Committing the file is the caller's.
        """
        ...


@runtime_checkable
class OrderedSink(Protocol):
    """A disk being written from its beginning to its end (compressed streams).

    Attributes:
        unit: Bytes of the disk encoded at a time, a multiple of 512 KiB.
    """

    unit: int

    def encode(self, offset: int, data: memoryview | None) -> Sequence[bytes | memoryview]:
        """Encode one unit (shorter at the end); None: it reads as zeros.

        Called from several threads, touches nothing shared.
        """
        ...

    def append(self, offset: int, encoded: Sequence[bytes | memoryview]) -> None:
        """Take the units in order, one at a time."""
        ...

    def finish(self) -> None:
        """Write what makes an image of it and flush. Committing the file is the caller's."""
        ...
