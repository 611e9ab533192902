"""OutputFile: the seam for a file that is being made, be it local (`imaging.newfile.NewFile`) or on a share."""

from abc import ABC, abstractmethod
from pathlib import Path, PurePath
from types import TracebackType
from typing import Protocol, Self


class OutputFile(Protocol):
    """A file that appears whole or not at all, written from any number of threads at distinct places.

    It grows as it is written; what was never written is a hole and reads as zeros. As a context manager it is given
    up at the end unless it was committed.
    """

    @property
    def path(self) -> PurePath:
        """What it will be called."""
        ...

    @property
    def journal_path(self) -> Path:
        """Of its journal, on this machine; whoever keeps it may write one."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        ...

    @property
    def inode(self) -> int:
        """What tells it, unfinished, from another one of its name."""
        ...

    @property
    def bytes_written(self) -> int:
        """By all writes so far."""
        ...

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`; durable only after `flush`."""
        ...

    def truncate(self, size: int) -> None:
        """Make the file this long."""
        ...

    def flush(self) -> None:
        """Make everything written so far survive power loss."""
        ...

    def commit(self) -> None:
        """Flush and give the file its name; durable when this returns. Deletes the journal."""
        ...

    def abort(self) -> None:
        """Give it up. May be called twice, and after `commit`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class GivenUp(ABC):
    """A context manager that gives up, at its end, what was not finished."""

    @abstractmethod
    def abort(self) -> None:
        """Give it up; does nothing if it was finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()
