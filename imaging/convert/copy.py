"""Copy a disk into a sink that takes it at any place: threads that read, test, write and hash. Knows no format.

Each thread owns one buffer of a digest block, so a block is read, compared with zeros, written and hashed while it is
in the processor's cache; there is no queue and no hand-off. Memory: 512 KiB a thread.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator

from imaging.convert.plan import RUN, Gap, Run, plan_runs
from imaging.convert.sink import Checkpoints, RandomSink
from imaging.convert.turns import Turns
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, DIGEST_SIZE, ZERO_BLOCK_DIGEST, DigestBuilder
from imaging.errors import Stopped
from imaging.extent import Cell
from imaging.units import KiB
from imaging.workers import run_workers

_PLAIN_THREADS = 2
"""Of a copy without a digest: the kernel's copying is bound by memory, more threads lose 10 to 30 %."""
_MAX_THREADS = 8
"""With a digest: eight cores hash 14 GB/s, more than any storage below gives."""

_PIECE = 64 * KiB
"""Zeros inside a block that is written are left out by pieces of this."""
_ZERO_BLOCK = bytes(DIGEST_BLOCK)
_ZEROS = memoryview(_ZERO_BLOCK)


def copy_random(
    source: BlockDevice,
    sink: RandomSink,
    *,
    digest: DigestBuilder | None,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Copy all data of `source` into `sink`, whose `finish` is the caller's. Blocking.

    The first write into each 2 MiB of the disk comes after those into all 2 MiB before it: a sink that places blocks at
    their first write makes the same file of the same disk, whoever of the threads is faster.

    Args:
        source: Read from several threads at once, as its contract allows.
        sink: Written from several threads at once, as its contract allows.
        digest: Gets the digest of every block; None: nothing is hashed.
        progress: Called with the bytes finished since the last call, holes included; from any worker, one call at a
            time.
        stop: Polled before every 2 MiB; answering true ends the work.
        threads: Workers; by default one a core with a digest, two without.
        checkpoints: Where to begin, and what is told how far the copy is: from time to time, and when it is stopped.

    Raises:
        Stopped: `stop` answered true.
        ImagingError: The source or the sink failed; the first error counts.
    """
    work = _Work(source, sink, digest, progress, stop, checkpoints=checkpoints)
    count = threads or _thread_count(hashing=digest is not None)
    run_workers(work.run, count=count, name="copy", abort=work.abort)


def _thread_count(*, hashing: bool) -> int:
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS) if hashing else _PLAIN_THREADS


class _Work:
    """What the workers share: the steps to do, guarded by one lock."""

    def __init__(
        self,
        source: BlockDevice,
        sink: RandomSink,
        digest: DigestBuilder | None,
        progress: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
        *,
        checkpoints: Checkpoints | None,
    ) -> None:
        start = checkpoints.start if checkpoints else 0
        extents = source.extents(start, source.size - start)
        plan = plan_runs(extents, source.size, block=DIGEST_BLOCK, run=RUN, start=start)
        self._steps = enumerate_runs(plan)
        self._position = start
        self._copied = 0
        self._busy = 0
        self._is_held = False
        self._checkpoints = checkpoints
        self._source = source
        self._sink = sink
        self._digest = digest
        self._progress = progress
        self._stop = stop
        self._turns = Turns()
        self._changed = threading.Condition()
        self._aborted = False
        if start and progress is not None:
            progress(start)

    def abort(self) -> None:
        """Make every worker end after the block it is busy with."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
        self._turns.abort()

    def run(self) -> None:
        """Work until no step is left; one call a thread."""
        buffer = bytearray(DIGEST_BLOCK)
        with memoryview(buffer) as view:
            worker = _Worker(self._source, self._sink, buffer, view)
            while (step := self._next()) is not None:
                number, cell = step
                if isinstance(cell, Gap):
                    self._skip(cell)
                else:
                    self._copy(worker, cell, number)
                self._report(cell.length)

    def _next(self) -> tuple[int, Run | Gap] | None:
        """Return the next step; on the way there, at times, see to a checkpoint."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._aborted or not self._is_held)
                stopped = not self._aborted and self._stop is not None and self._stop()
                save = self._freeze(stopped=stopped)
                if save is None and not stopped:
                    return None if self._aborted else self._take()
            if save is not None:
                save()
            if stopped:
                raise Stopped("the copy was stopped before it was complete")

    def _take(self) -> tuple[int, Run | Gap] | None:
        step = next(self._steps, None)
        if step is not None:
            cell = step[1]
            self._busy += 1
            self._position = cell.offset + cell.length
            self._copied += cell.length if isinstance(cell, Run) else 0
        return step

    def _freeze(self, *, stopped: bool) -> Callable[[], None] | None:
        """If it is time, wait until nobody writes, and note how far the copy is: all steps handed out are done then."""
        points = self._checkpoints
        if points is None or self._aborted or not (stopped or points.is_due(self._copied)):
            return None
        self._is_held = True
        self._changed.wait_for(lambda: self._aborted or not self._busy)
        self._is_held = False
        self._changed.notify_all()
        return None if self._aborted else points.freeze(self._position)

    def _skip(self, gap: Gap) -> None:
        if self._digest is not None:
            self._digest.set_zero(gap.offset // DIGEST_BLOCK, -(-gap.length // DIGEST_BLOCK))

    def _copy(self, worker: "_Worker", run: Run, number: int) -> None:
        digests = bytearray(ZERO_BLOCK_DIGEST * -(-run.length // DIGEST_BLOCK))
        is_first = True
        for unit in run.units:
            if worker.load(unit):
                if is_first:
                    self._turns.take(number)
                worker.store(unit)
                if is_first:
                    self._turns.give()
                is_first = False
                if self._digest is not None:
                    at = (unit.offset - run.offset) // DIGEST_BLOCK * DIGEST_SIZE
                    digests[at : at + DIGEST_SIZE] = worker.hash()
        if is_first:
            self._turns.take(number)
            self._turns.give()
        if self._digest is not None:
            self._digest.set_blocks(run.offset // DIGEST_BLOCK, bytes(digests))

    def _report(self, count: int) -> None:
        with self._changed:
            self._busy -= 1
            if self._is_held and not self._busy:
                self._changed.notify_all()
            if self._progress is not None:
                self._progress(count)


def enumerate_runs(steps: Iterator[Run | Gap]) -> Iterator[tuple[int, Run | Gap]]:
    """Number the runs, not the gaps (they get the number of the run behind them)."""
    number = 0
    for step in steps:
        yield number, step
        number += isinstance(step, Run)


class _Worker:
    """One thread's buffer and what goes through it."""

    def __init__(
        self, source: BlockDevice, sink: RandomSink, buffer: bytearray, view: memoryview
    ) -> None:
        self._source = source
        self._sink = sink
        self._buffer = buffer
        self._view = view

    def load(self, unit: Cell) -> bool:
        """Read a block, zeros where it has no data; tell whether there is anything but zeros in it."""
        view, last = self._view, unit.parts[-1]
        begin, end = unit.parts[0][0] - unit.offset, last[0] + last[1] - unit.offset
        view[:begin] = _ZEROS[:begin]
        self._source.read_into(unit.offset + begin, view[begin:end])
        view[end:] = _ZEROS[end:]
        return (
            self._buffer != _ZERO_BLOCK
        )  # of the bytearray: a memoryview compares 80 times slower

    def store(self, unit: Cell) -> None:
        """Write the data of the block."""
        for offset, length in unit.parts:
            start = offset - unit.offset
            for begin, end in self._pieces(start, start + length):
                self._sink.write(unit.offset + begin, self._view[begin:end])

    def hash(self) -> bytes:
        """Return the digest of the block, padded with zeros if it is the last one."""
        return hashlib.sha256(self._view).digest()

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Leave out the zeros of [begin, end), by whole pieces."""
        start = begin
        while begin < end:
            stop = min((begin // _PIECE + 1) * _PIECE, end)
            if self._buffer.startswith(_ZEROS[: stop - begin], begin):
                if start < begin:
                    yield start, begin
                start = stop
            begin = stop
        if start < end:
            yield start, end
