"""Archives: a disk as one stream that is sent in parts, gone on with behind any part, and checked part by part.

What a format needs to go on is a state of small numbers behind each part. The formats are `archives`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Protocol

from imaging.digest import DigestBuilder
from imaging.extent import Extent

State = tuple[int, ...]
Extents = Callable[[], Iterable[Extent]]
"""Walks the source's extents from its beginning."""


class Appendable(Protocol):
    """What an archive is written to: always at its end."""

    @property
    def path(self) -> PurePath:
        """Its name, for messages and for formats that hold one."""
        ...

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`, which is the end."""
        ...

    def flush(self) -> None:
        """Nothing is kept back."""
        ...


class ArchiveSink(Protocol):
    """An OrderedSink whose state can be taken between two units."""

    unit: int

    def encode(self, offset: int, data: memoryview | None) -> Sequence[Any]:
        """See OrderedSink."""
        ...

    def append(self, offset: int, encoded: Sequence[Any]) -> None:
        """See OrderedSink."""
        ...

    def take_state(self) -> State:
        """Return the state, which with all states before it is what it takes to go on."""
        ...

    def finish(self) -> None:
        """Write the archive's end."""
        ...


@dataclass(frozen=True, slots=True)
class ArchivePiece:
    """Where one piece is.

    Attributes:
        start / end: What it stands for, of the disk.
        is_first / is_last: Whether the archive's header, or its end, is in it.
        file_offset: Where it begins in the archive.
    """

    start: int
    end: int
    is_first: bool
    is_last: bool
    file_offset: int = 0


class Differs(Exception):
    """What was read back is not the disk.

    Attributes:
        block: The digest block, -1 for the archive's own header or end.
    """

    def __init__(self, what: str, block: int = -1) -> None:
        super().__init__(what)
        self.block = block


class PieceCheck(Protocol):
    """The archive of one disk as it has to be. Thread-safe once made."""

    def check(self, piece: ArchivePiece, data: bytes) -> int:
        """Compare one piece and return how many digest blocks of it are data; raises Differs."""
        ...


class ArchiveFormat(Protocol):
    """One format."""

    @property
    def encoding(self) -> str:
        """What an earlier attempt must have used, too, so that its parts can be gone on with."""
        ...

    @property
    def stride(self) -> int:
        """Parts end at multiples of so many bytes of the disk."""
        ...

    def sink(
        self, file: Appendable, size: int, extents: Extents, states: Sequence[State]
    ) -> ArchiveSink:
        """Begin the archive of a disk of `size` bytes, or go on behind the last of all states."""
        ...

    def check(
        self, size: int, extents: Extents, states: Sequence[State], digest: DigestBuilder
    ) -> PieceCheck:
        """Return what compares its pieces with a complete digest of the source."""
        ...
