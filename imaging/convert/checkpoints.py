"""Checkpoints of a copy: data, flush, journal, flush. Knows no thread: `imaging.convert.copy` says when to."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from imaging.convert.journal import Journal
from imaging.convert.records import Mark, build_digests, build_mark, build_places
from imaging.convert.sink import ResumableSink
from imaging.digest import DigestBuilder, block_count
from imaging.digest.pages import PAGE_BLOCKS
from imaging.output import OutputFile
from imaging.units import GiB


@dataclass(frozen=True, slots=True)
class Interval:
    """How far checkpoints are from each other: both must have passed.

    So what a kill costs is small beside what is copied, and flushing is small beside the copying.
    """

    data: int = 1 * GiB
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Frozen:
    """What is true at one moment: the mark, and what is new since the one before it."""

    mark: Mark
    placed: Sequence[int]
    first_block: int


class FileCheckpoints:
    """The `Checkpoints` of one partial file and its journal.

    Attributes:
        start: The copy begins at this byte of the disk.
    """

    def __init__(
        self,
        file: OutputFile,
        sink: ResumableSink,
        journal: Journal,
        digest: DigestBuilder | None,
        *,
        interval: Interval,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on from the journal's mark; `sink` and `digest` are restored already."""
        mark = journal.mark
        self.start = 0 if mark is None else mark.offset
        self._placed = 0 if mark is None else mark.placed
        self._offset = self.start
        self._file = file
        self._sink = sink
        self._journal = journal
        self._digest = digest
        self._interval = interval
        self._clock = clock
        self._copied = 0
        self._frozen_at = clock()
        self._is_saving = False

    def is_due(self, copied: int) -> bool:
        """See `Checkpoints`."""
        if self._is_saving or copied - self._copied < self._interval.data:
            return False
        if self._clock() - self._frozen_at < self._interval.seconds:
            return False
        self._copied = copied
        return True

    def freeze(self, offset: int) -> Callable[[], None] | None:
        """See `Checkpoints`; None if nothing is new, or the last one is still being saved."""
        if self._is_saving or offset == self._offset:
            return None
        placed = self._sink.placed()
        self._placed += len(placed)
        frozen = Frozen(
            Mark(offset, self._placed, self._file.size), placed, block_count(self._offset)
        )
        self._offset = offset
        self._frozen_at = self._clock()
        self._is_saving = True
        return partial(self._save, frozen)

    def _save(self, frozen: Frozen) -> None:
        self._file.flush()
        self._journal.add(self._records(frozen))
        self._is_saving = False

    def _records(self, frozen: Frozen) -> Iterator[bytes]:
        salt = self._journal.salt
        if self._digest is not None:
            yield from self._digests(self._digest, frozen, salt)
        yield from build_places(frozen.placed, salt)
        yield build_mark(frozen.mark, salt)

    def _digests(self, digest: DigestBuilder, frozen: Frozen, salt: bytes) -> Iterator[bytes]:
        block, end = frozen.first_block, block_count(frozen.mark.offset)
        while block < end:
            count = min(PAGE_BLOCKS - block % PAGE_BLOCKS, end - block)
            yield build_digests(block, digest.blocks(block, count), salt)
            block += count
