"""Compute the content digest of a whole device with several threads; holes are not read.

The digest inside a copy is not made here: the copy pipeline hashes what it moves.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imaging.device import BlockDevice
from imaging.digest.builder import DIGEST_BLOCK, DigestBuilder, DiskDigest, hash_block
from imaging.errors import Stopped
from imaging.extent import Extent
from imaging.workers import run_workers

_RUN_BLOCKS = 8
"""Blocks that a worker takes at a time (4 MiB): locks stay rare, work stays evenly spread."""


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Neighbouring digest blocks that are treated alike."""

    first: int
    count: int
    is_data: bool


def digest_device(
    device: BlockDevice,
    *,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    builder: DigestBuilder | None = None,
) -> DiskDigest:
    """Read every data extent of `device` once and return its digest. Blocking.

    Memory: one 512 KiB buffer a thread, plus the digests (`DigestBuilder`).

    Args:
        device: Read from several threads at once, as its contract allows.
        progress: Called with the bytes finished since the last call, holes included; from any
            worker, one call at a time.
        stop: Polled before every 4 MiB; answering true ends the work.
        threads: Workers; by default one a core.
        builder: Is filled, for callers who want the digests of the blocks; made for the size of `device`.

    Raises:
        Stopped: `stop` answered true.
        ImagingError: The device failed.
    """
    work = _Work(device, builder or DigestBuilder(device.size), progress, stop)
    count = threads or len(os.sched_getaffinity(0))
    run_workers(work.run, count=count, name="digest", abort=work.abort)
    return work.builder.digest()


def block_runs(extents: Iterator[Extent], virtual_size: int) -> Iterator[BlockRun]:
    """Turn ordered extents into runs of digest blocks; a block with any data in it is data."""
    cursor = 0
    for extent in extents:
        if not extent.is_data:
            continue
        first = max(extent.offset // DIGEST_BLOCK, cursor)
        end = -(-extent.end // DIGEST_BLOCK)
        if first > cursor:
            yield BlockRun(cursor, first - cursor, is_data=False)
        for start in range(first, end, _RUN_BLOCKS):
            yield BlockRun(start, min(_RUN_BLOCKS, end - start), is_data=True)
        cursor = max(cursor, end)
    count = -(-virtual_size // DIGEST_BLOCK)
    if count > cursor:
        yield BlockRun(cursor, count - cursor, is_data=False)


class _Work:
    """What the workers share: the runs to do, guarded by one lock, and the result."""

    def __init__(
        self,
        device: BlockDevice,
        builder: DigestBuilder,
        progress: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.builder = builder
        self._device = device
        self._runs = block_runs(device.extents(0, device.size), device.size)
        self._lock = threading.Lock()
        self._progress = progress
        self._stop = stop
        self._aborted = False

    def abort(self) -> None:
        """Make every worker end after the run it is busy with."""
        self._aborted = True

    def run(self) -> None:
        """Work until no run is left; one call a thread."""
        buffer = bytearray(DIGEST_BLOCK)
        while (run := self._next()) is not None:
            if run.is_data:
                self.builder.set_blocks(run.first, self._hash(run, buffer))
            else:
                self.builder.set_zero(run.first, run.count)
            self._report(run)

    def _next(self) -> BlockRun | None:
        with self._lock:
            if self._aborted:
                return None
            if self._stop is not None and self._stop():
                raise Stopped("the digest was stopped before it was complete")
            return next(self._runs, None)

    def _hash(self, run: BlockRun, buffer: bytearray) -> bytes:
        digests = []
        with memoryview(buffer) as view:
            for block in range(run.first, run.first + run.count):
                offset = block * DIGEST_BLOCK
                length = min(DIGEST_BLOCK, self._device.size - offset)
                self._device.read_into(offset, view[:length])
                view[length:] = bytes(DIGEST_BLOCK - length)
                digests.append(hash_block(buffer))
        return b"".join(digests)

    def _report(self, run: BlockRun) -> None:
        if self._progress is not None:
            end = min((run.first + run.count) * DIGEST_BLOCK, self._device.size)
            with self._lock:
                self._progress(end - run.first * DIGEST_BLOCK)
