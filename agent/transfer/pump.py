"""The pump: source device -> read, zero test, hash (threads) -> puts (event loop), bounded by a pool of buffers.

Each byte is read once, hashed once and sent once unless a request fails; zero and unallocated blocks are never sent.
Memory <= buffers * chunk, whatever the disk's size. A chunk's receipt is written only after every put of it was
acknowledged. The first error ends the whole pump and is the error that the caller sees.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Protocol

from agent.errors import AgentError, Cancelled
from agent.retry import Retrier, RetryPolicy
from agent.targets.base import TargetDisk, TargetLimits
from agent.transfer.buffers import BufferPool
from agent.transfer.flow import Flow
from agent.transfer.gate import Gate
from agent.transfer.limiter import Limiter
from agent.transfer.plan import Chunk, Gap, plan_chunks
from agent.transfer.reader import FilledChunk, Span, fill_chunk
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.errors import ImagingError

READERS = 2
"""Reading threads: two hide a share's latency behind hashing; more only fight for the cores (measured on 2)."""

POLL_S = 0.02
STALL_S = 1.0
"""Without a finished chunk for so long, the pump says what it waits for, and goes on saying it."""


class Receipts(Protocol):
    """The journal's memory of finished chunks of one job."""

    def load(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, length, digests) of every chunk that an earlier attempt finished. In a worker thread."""
        ...

    def add(self, offset: int, length: int, digests: bytes) -> None:
        """Note a finished chunk; durable within a second. Cheap, from the event loop."""
        ...


@dataclass(slots=True)
class PumpStats:
    """What the pump did so far; bytes are bytes of data (holes do not count).

    Attributes:
        total: Bytes of data of the disk.
        done: Read and acknowledged, `skipped` included.
        skipped: Finished by earlier attempts, not read again.
        sent: Bytes of acknowledged puts.
        puts: Acknowledged puts.
        retries: Puts that failed and were tried again.
        slow: The side that holds the transfer back (`agent.transfer.flow`); None unless it stands still.
    """

    total: int = 0
    done: int = 0
    skipped: int = 0
    sent: int = 0
    puts: int = 0
    retries: int = 0
    slow: str | None = None


@dataclass(slots=True, kw_only=True)
class Pump:
    """One copy of one disk; used once.

    Attributes:
        source: Read from `READERS` threads at once.
        disk: Where it goes; `limits` are its target's.
        digest: Gets every block's digest; complete when `run` returns.
        receipts: Finished chunks, across attempts; read once before anything else.
        threads: Runs the readers; needs `READERS` free workers.
        progress: Called on the event loop after every chunk, and once a second while none gets done.
        buffers: Chunks in memory.
    """

    source: BlockDevice
    disk: TargetDisk
    limits: TargetLimits
    digest: DigestBuilder
    receipts: Receipts
    threads: Executor
    limiter: Limiter
    retry: RetryPolicy
    now: Callable[[], float]
    random: Callable[[], float]
    progress: Callable[[PumpStats], None]
    buffers: int = 24
    stats: PumpStats = field(default_factory=PumpStats)

    _flow: Flow = field(default_factory=Flow)
    _pool: BufferPool = field(init=False)
    _gate: Gate = field(init=False)
    _retrier: Retrier = field(init=False)
    _queue: "asyncio.Queue[FilledChunk | None]" = field(init=False)
    _chunks: Iterator[Chunk | Gap] = field(init=False)
    _plan_lock: threading.Lock = field(init=False)
    _finished_cells: bytearray = field(init=False)

    def __post_init__(self) -> None:
        chunk = self.chunk_size
        self._finished_cells = bytearray(-(-self.source.size // chunk))
        self._pool = BufferPool(self.buffers, chunk)
        self._gate = Gate(
            start=self.limits.inflight_start, most=self.limits.inflight_max, now=self.now
        )
        self._retrier = Retrier(policy=self.retry, now=self.now, random=self.random)
        self._queue = asyncio.Queue()  # never longer than the pool has buffers
        self._chunks = plan_chunks(
            self.source.extents(0, self.source.size), self.source.size, chunk
        )
        self._plan_lock = threading.Lock()

    @property
    def chunk_size(self) -> int:
        """Bytes of a cell of the grid: receipts of another grid say nothing about this one."""
        return -(-self.limits.chunk // DIGEST_BLOCK) * DIGEST_BLOCK

    async def run(self) -> PumpStats:
        """Copy everything that no receipt names yet; returns when all of it is acknowledged.

        Raises:
            AgentError, ImagingError: The first failure, after everything else has stopped.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.threads, self._load_receipts)
        readers = [self.threads.submit(self._read_chunks, loop) for _ in range(READERS)]
        try:
            async with asyncio.TaskGroup() as around:
                stalls = around.create_task(self._report_stalls())
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch_readers(readers))
                    for _ in range(self.limits.inflight_max):
                        group.create_task(self._write_chunks())
                stalls.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures
        finally:
            self._pool.close()
            await _wait_for(readers)
        return self.stats

    async def _watch_readers(self, readers: list[Future[None]]) -> None:
        # All of them first: the one that failed closed the pool, which ends the others with Cancelled.
        errors: list[BaseException] = []
        for reader in readers:
            try:
                await asyncio.wrap_future(reader)
            except (AgentError, ImagingError) as err:
                errors.append(err)
        if errors:
            raise _most_telling(errors)
        for _ in range(self.limits.inflight_max):
            self._queue.put_nowait(None)

    def _load_receipts(self) -> None:
        for offset, length, digests in self.receipts.load():
            if offset % self.chunk_size == 0 and length == min(
                self.chunk_size, self.source.size - offset
            ):
                self.digest.set_blocks(offset // DIGEST_BLOCK, digests)
                self._finished_cells[offset // self.chunk_size] = 1

    # --- worker threads -----------------------------------------------------------------------------------

    def _read_chunks(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (item := self._next_item()) is not None:
                if isinstance(item, Gap):
                    self._settle_gap(item)
                elif not self._settle_receipt(item, loop):
                    self._fill(item, loop)
        except BaseException:
            self._pool.close()
            raise

    def _next_item(self) -> Chunk | Gap | None:
        with self._plan_lock:
            return next(self._chunks, None)

    def _settle_gap(self, gap: Gap) -> None:
        self.digest.set_zero(gap.offset // DIGEST_BLOCK, -(-gap.length // DIGEST_BLOCK))

    def _settle_receipt(self, chunk: Chunk, loop: asyncio.AbstractEventLoop) -> bool:
        if not self._finished_cells[chunk.offset // self.chunk_size]:
            return False
        loop.call_soon_threadsafe(self._skipped, chunk)
        return True

    def _fill(self, chunk: Chunk, loop: asyncio.AbstractEventLoop) -> None:
        buffer = self._pool.take()
        filled = fill_chunk(
            self.source,
            chunk,
            buffer,
            alignment=self.limits.alignment,
            checksum=self.disk.checksum,
        )
        self.digest.set_blocks(chunk.offset // DIGEST_BLOCK, filled.digests)
        loop.call_soon_threadsafe(self._queue.put_nowait, filled)

    # --- event loop ---------------------------------------------------------------------------------------

    async def _report_stalls(self) -> None:
        while True:
            done = self.stats.done
            await asyncio.sleep(STALL_S)
            if self.stats.done == done:
                self.stats.slow = self._flow.held_back_by
                self.progress(self.stats)

    async def _write_chunks(self) -> None:
        while (filled := await self._queue.get()) is not None:
            with memoryview(filled.buffer) as view, self._flow.write():
                for span in filled.spans:
                    await self._put(filled.chunk.offset, span, view)
            self._finished(filled)
            self._pool.give(filled.buffer)

    async def _put(self, base: int, span: Span, view: memoryview) -> None:
        offset, data = base + span.start, view[span.start : span.start + span.length]

        async def once() -> None:
            with self._flow.wait_for_limit():
                await self.limiter.take(len(data))
            async with self._gate.slot():
                await self.disk.put(offset, data, span.checksum)

        await self._retrier.call(once, throttled=self._gate.throttled, retried=self._retried)
        self._gate.succeeded()
        self.stats.puts += 1
        self.stats.sent += len(data)

    def _retried(self) -> None:
        self.stats.retries += 1
        self.progress(self.stats)

    def _finished(self, filled: FilledChunk) -> None:
        chunk = filled.chunk
        self.receipts.add(chunk.offset, chunk.length, filled.digests)
        self.stats.done += chunk.data_bytes
        self.stats.slow = None
        self.progress(self.stats)

    def _skipped(self, chunk: Chunk) -> None:
        self.stats.done += chunk.data_bytes
        self.stats.skipped += chunk.data_bytes
        self.progress(self.stats)


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to report out of a group: the first real one, a Cancelled only if there is no other."""
    return _most_telling(_flatten(failures))


def _most_telling(errors: list[BaseException]) -> BaseException:
    return next((error for error in errors if not isinstance(error, Cancelled)), errors[0])


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


async def _wait_for(readers: list[Future[None]]) -> None:
    """Wait for the threads to leave the device; the stage aborts the share when it is cancelled, so this is short."""
    for reader in readers:
        while not reader.done():  # noqa: ASYNC110 - a cancelled wrap_future no longer tells when the thread ends
            await asyncio.sleep(POLL_S)
