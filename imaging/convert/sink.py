"""The two ways of writing a disk that `convert` knows: at any place, or in order. Writes nothing itself."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable


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
class ResumableSink(RandomSink, Protocol):
    """A RandomSink that can be gone on with in another process, in a file that a run before has left."""

    def restore(self, offset: int, placed: Iterable[int]) -> None:
        """Go on: everything before `offset` was written. What the file has beyond that is dropped.

        Called once, before any write; with 0 and nothing if there is nothing to go on with.

        Args:
            offset: Of the disk.
            placed: Blocks that have a place, in the order of the places; what `placed` returned so far.

        Raises:
            JournalInvalid: They cannot be this disk's.
        """
        ...

    def placed(self) -> Sequence[int]:
        """Return the blocks that got a place since the last call, in that order; nobody writes meanwhile."""
        ...


class Checkpoints(Protocol):
    """Where a copy tells how far it is, so that another process can go on from there.

    Attributes:
        start: The copy begins at this byte of the disk.
    """

    start: int

    def is_due(self, copied: int) -> bool:
        """Tell whether it is time, after so many bytes of data since the beginning."""
        ...

    def freeze(self, offset: int) -> Callable[[], None] | None:
        """Note that everything before `offset` was written and nothing behind it; nobody writes meanwhile.

        Returns:
            What makes it durable, to be called once; others may be writing again then. None: there is nothing to do.
        """
        ...


@runtime_checkable
class OrderedSink(Protocol):
    """A disk being written from its beginning to its end (compressed streams).

    Attributes:
        unit: Bytes of the disk encoded at a time, a multiple of 512 KiB.
    """

    unit: int

    def encode(self, offset: int, data: memoryview | None) -> Sequence[Any]:
        """Encode one unit (shorter at the end); None: it reads as zeros.

        Called from several threads, touches nothing shared.
        """
        ...

    def append(self, offset: int, encoded: Sequence[Any]) -> None:
        """Take the units in order, one at a time."""
        ...

    def finish(self) -> None:
        """Write what makes an image of it and flush. Committing the file is the caller's."""
        ...
