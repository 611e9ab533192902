"""Copy a disk into an OrderedSink with several threads: read, compare with zero, hash, encode, append in order.

Knows no format. There is no writer thread: whoever completes the unit that is next appends it, and those behind it
that are ready.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from imaging.convert.sink import OrderedSink
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder, block_count
from imaging.errors import Stopped
from imaging.extent import Extent
from imaging.workers import run_workers

WINDOW = 16
"""Jobs that may be begun before the oldest is appended. Memory: as many units, read or encoded, and a unit a thread."""
_EMPTY_UNITS = 1024
"""Units without data that are one job: 2 TiB of nothing is a few hundred of them."""
_ZEROS = bytes(DIGEST_BLOCK)

Encoded = Sequence[Any]
"""What a sink makes of one unit, for itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of the disk, or many neighbours of which no byte is data.

    Attributes:
        offset: First byte.
        length: Bytes.
        blocks: Digest blocks that must be read; none: all of it reads as zeros.
    """

    offset: int
    length: int
    blocks: tuple[int, ...]


def copy_ordered(
    source: BlockDevice,
    sink: OrderedSink,
    *,
    digest: DigestBuilder | None = None,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    start: int = 0,
) -> None:
    """Read every data extent of `source` once and give the disk to `sink`, whose `finish` is the caller's. Blocking.

    Args:
        source: Read from several threads at once, as its contract allows.
        sink: See its Protocol.
        digest: Is told every block.
        progress: Called with the bytes appended since the last call, holes included; one call at a time.
        stop: Polled before every job; answering true ends the work.
        threads: Workers; by default one a core. More than WINDOW are never busy.
        start: A multiple of the sink's unit: the sink has everything before it.

    Raises:
        Stopped: `stop` answered true.
        ImagingError: Source or sink failed; the first failure, if there are several.
    """
    work = _Work(source, sink, digest, progress, stop, start=start)
    count = min(threads or len(os.sched_getaffinity(0)), WINDOW)
    run_workers(work.run, count=count, name="ordered", abort=work.abort)


def plan(extents: Iterable[Extent], size: int, unit: int, start: int = 0) -> Iterator[Job]:
    """Cut a disk of `size` bytes, from `start` on, into jobs, in order and without gaps.

    A digest block with any data in it is read.
    """
    cursor, blocks_per_unit = start, unit // DIGEST_BLOCK
    for number, blocks in groupby(_data_blocks(extents), lambda block: block // blocks_per_unit):
        yield from _empty_jobs(cursor, number * unit, unit)
        cursor = min((number + 1) * unit, size)
        yield Job(number * unit, cursor - number * unit, tuple(blocks))
    yield from _empty_jobs(cursor, size, unit)


def _data_blocks(extents: Iterable[Extent]) -> Iterator[int]:
    done = 0
    for extent in extents:
        if extent.is_data:
            end = block_count(extent.end)
            yield from range(max(extent.offset // DIGEST_BLOCK, done), end)
            done = end


def _empty_jobs(start: int, end: int, unit: int) -> Iterator[Job]:
    span = unit * _EMPTY_UNITS
    while start < end:
        stop = min(start // span * span + span, end)  # whole GiB: their digests are set at once
        yield Job(start, stop - start, ())
        start = stop


class _Work:
    """What the workers share; one lock guards all of it, and nobody reads, encodes or appends while holding it."""

    def __init__(
        self,
        source: BlockDevice,
        sink: OrderedSink,
        digest: DigestBuilder | None,
        progress: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
        *,
        start: int,
    ) -> None:
        self._aborted = False
        self._source = source
        self._sink = sink
        self._digest = digest
        self._progress = progress
        self._stop = stop
        extents = source.extents(start, source.size - start)
        self._jobs = enumerate(plan(extents, source.size, sink.unit, start))
        self._changed = threading.Condition()
        self._ready: dict[int, tuple[Job, Encoded]] = {}
        self._appended = 0
        self._taken = 0

    def abort(self) -> None:
        """Make every worker end."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def run(self) -> None:
        """Work until no job is left or somebody failed; one call a thread."""
        buffer = bytearray(self._sink.unit)
        while (taken := self._next()) is not None:
            number, job = taken
            self._deliver(number, job, self._encode(job, buffer))

    def _next(self) -> tuple[int, Job] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._taken - self._appended < WINDOW)
            if self._aborted:
                return None
            if self._stop is not None and self._stop():
                raise Stopped("the copy was stopped before it was complete")
            taken = next(self._jobs, None)
            self._taken += taken is not None
            return taken

    def _encode(self, job: Job, buffer: bytearray) -> Encoded:
        if not job.blocks:
            if self._digest is not None:
                self._digest.set_zero(job.offset // DIGEST_BLOCK, block_count(job.length))
            return ()
        if not self._read(job, buffer):
            return self._sink.encode(job.offset, None)
        with memoryview(buffer) as view, view[: job.length] as data:
            return self._sink.encode(job.offset, data)

    def _read(self, job: Job, buffer: bytearray) -> bool:
        """Read a unit, zeros where it has no data, and tell its digests; return whether it is more than zeros."""
        first = job.offset // DIGEST_BLOCK
        count = block_count(job.length)
        digests = [ZERO_BLOCK_DIGEST] * count
        is_data = False
        with memoryview(buffer) as view:
            for i in range(count):
                at = i * DIGEST_BLOCK
                block = view[at : at + DIGEST_BLOCK]
                length = min(DIGEST_BLOCK, job.length - at) if first + i in job.blocks else 0
                self._source.read_into(job.offset + at, block[:length])
                block[length:] = _ZEROS[length:]
                # A bytearray compares in place, 80 times as fast as a memoryview.
                if length and not buffer.startswith(_ZEROS, at):
                    is_data = True
                    if self._digest is not None:
                        digests[i] = hashlib.sha256(block).digest()
        if self._digest is not None:
            self._digest.set_blocks(first, b"".join(digests))
        return is_data

    def _deliver(self, number: int, job: Job, encoded: Encoded) -> None:
        """Append what is next, as long as it is ready.

        A job is next once the one before it is appended, and only one worker can take it: nobody else appends then.
        """
        with self._changed:
            self._ready[number] = (job, encoded)
        while (item := self._next_ready()) is not None:
            self._append(*item)

    def _next_ready(self) -> tuple[Job, Encoded] | None:
        with self._changed:
            return self._ready.pop(self._appended, None)

    def _append(self, job: Job, encoded: Encoded) -> None:
        if job.blocks:
            self._sink.append(job.offset, encoded)
        else:
            for offset in range(job.offset, job.offset + job.length, self._sink.unit):
                self._sink.append(offset, self._sink.encode(offset, None))
        with self._changed:
            self._appended += 1
            self._changed.notify_all()
            if self._progress is not None:
                self._progress(job.length)
