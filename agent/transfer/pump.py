"""The pump: each worker thread reads a chunk, hashes it and sends it, and takes the next one; the loop keeps the books.

One thread does it all, because bytes that change cores between hashing and sending cost a third more (docs/adr/0007).
Each byte is read once, hashed once and sent once unless a request fails; zero and unallocated blocks are never sent.
Memory <= `inflight_max` chunks, whatever the disk's size. A chunk's receipt is written only after every put of it was
acknowledged. The first error ends the whole pump and is the error that the caller sees.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from agent.errors import Retryable, Throttled, TooSlow
from agent.retry import Retrier
from agent.targets.base import TargetDisk, TargetLimits
from agent.threads import Pool, Stop, run_blocking
from agent.transfer.crew import Books, Stats, run_crew
from agent.transfer.flow import held_back_by
from agent.transfer.gate import Gate
from agent.transfer.limiter import Limiter
from agent.transfer.plan import Chunk, Gap, plan_chunks
from agent.transfer.reader import FilledChunk, Span, fill_chunk
from agent.transfer.sizer import Sizer
from agent.whereabouts import At, Place, now, register
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, DigestBuilder

READERS = 2
"""Workers that read at a time: two hide a share's latency behind hashing; more only fight for the cores."""


class Receipts(Protocol):
    """The journal's memory of finished chunks of one job."""

    def load(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, length, digests) of every chunk that an earlier attempt finished. In a worker thread."""
        ...

    def add(self, offset: int, length: int, digests: bytes) -> None:
        """Note a finished chunk; durable within a second. Cheap, from the event loop."""
        ...


@dataclass(slots=True, kw_only=True)
class Pump:
    """One copy of one disk; used once.

    Attributes:
        source: Read by `READERS` threads at once.
        abort: Makes blocked reads of the source raise; called when the pump ends early.
        disk: Where it goes; `limits` are its target's.
        digest: Gets every block's digest; complete when `run` returns.
        receipts: Finished chunks, across attempts; read once before anything else.
        progress: Called on the event loop while chunks get done, and once a second while none does.
        reads_whole: Whether the source is a server's, of which a chunk is read at once.
        readers: Workers that read at a time.
    """

    source: BlockDevice
    abort: Callable[[], None]
    disk: TargetDisk
    limits: TargetLimits
    digest: DigestBuilder
    receipts: Receipts
    limiter: Limiter
    retrier: Retrier
    progress: Callable[[Stats], None]
    reads_whole: bool = False
    readers: int = READERS
    stats: Stats = field(default_factory=Stats)

    _stop: Stop = field(default_factory=Stop)
    _gate: Gate = field(init=False)
    _sizer: Sizer = field(init=False)
    _reading: "SimpleQueue[None]" = field(default_factory=SimpleQueue)
    """A token for each worker that may read: in C, where a semaphore in Python costs 64 workers a core."""
    _workers: list[Place] = field(init=False)
    _books: Books = field(init=False)
    _items: Iterator[Chunk | Gap] = field(init=False)
    _planning: threading.Lock = field(default_factory=threading.Lock)
    _finished_cells: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self._books = Books(self.stats, self.progress)
        chunk = self.chunk_size
        limits = self.limits
        self._gate = Gate(
            start=limits.inflight_start, most=limits.inflight_max, now=self.retrier.now
        )
        least = limits.least_put or limits.chunk
        self._sizer = Sizer(least=least, most=limits.chunk, now=self.retrier.now)
        for _ in range(self.readers):
            self._reading.put(None)
        self._workers = [Place() for _ in range(limits.inflight_max)]
        self._finished_cells = bytearray(-(-self.source.size // chunk))
        self._items = plan_chunks(self.source.extents(0, self.source.size), self.source.size, chunk)

    @property
    def chunk_size(self) -> int:
        """Bytes of a cell of the grid: receipts of another grid say nothing about this one."""
        return -(-self.limits.chunk // DIGEST_BLOCK) * DIGEST_BLOCK

    async def run(self) -> Stats:
        """Copy everything that no receipt names yet; returns when all of it is acknowledged.

        Raises:
            AgentError, ImagingError: The first failure, after everything else has stopped.
        """
        pool = Pool("copy", len(self._workers))
        try:
            await run_blocking(pool, self._load_receipts, stop=self._stop)
            with self._stop.waking(self.abort):
                works = [partial(self._work, place) for place in self._workers]
                await run_crew(
                    pool, works, self._stop, books=self._books, held_back_by=self._held_back_by
                )
        finally:
            pool.close()
        self._books.stalled(None)  # nothing waits any more, whatever the last chunk waited for
        return self.stats

    def _held_back_by(self) -> str:
        return held_back_by(place.look() for place in self._workers)

    def _finished(self, filled: FilledChunk) -> None:
        chunk = filled.chunk
        self.receipts.add(chunk.offset, chunk.length, filled.digests)
        self.stats.done += chunk.data_bytes
        self.stats.puts += len(filled.spans)
        self.stats.sent += sum(span.length for span in filled.spans)

    def _skipped(self, chunk: Chunk) -> None:
        self.stats.done += chunk.data_bytes
        self.stats.skipped += chunk.data_bytes

    # --- worker threads -----------------------------------------------------------------------------------

    def _load_receipts(self) -> None:
        for offset, length, digests in self.receipts.load():
            self._stop.check()
            if offset % self.chunk_size == 0 and length == min(
                self.chunk_size, self.source.size - offset
            ):
                self.digest.set_blocks(offset // DIGEST_BLOCK, digests)
                self._finished_cells[offset // self.chunk_size] = 1

    def _work(self, place: Place) -> None:
        register(place)
        buffer = bytearray()
        while True:
            self._reading.get()
            try:
                self._stop.check()
                chunk = self._next_chunk()
                if chunk is None:
                    now(At.DONE)
                    return
                buffer = buffer or bytearray(self.chunk_size)
                filled = self._read(chunk, buffer)
            finally:
                self._reading.put(None)
            with memoryview(buffer) as view:
                for span in filled.spans:
                    self._put(chunk.offset, span, view)
            now(At.TURN)
            self._books.post(partial(self._finished, filled))

    def _next_chunk(self) -> Chunk | None:
        """Return what has to be read next; settle what need not be read on the way."""
        with self._planning:
            for item in self._items:
                if isinstance(item, Gap):
                    blocks = -(-item.length // DIGEST_BLOCK)
                    self.digest.set_zero(item.offset // DIGEST_BLOCK, blocks)
                elif self._finished_cells[item.offset // self.chunk_size]:
                    self._books.post(partial(self._skipped, item))
                else:
                    return item
                self._stop.check()
        return None

    def _read(self, chunk: Chunk, buffer: bytearray) -> FilledChunk:
        filled = fill_chunk(
            self.source,
            chunk,
            buffer,
            alignment=self.limits.alignment,
            checksum=self.disk.checksum,
            whole=self.reads_whole,
        )
        self.digest.set_blocks(chunk.offset // DIGEST_BLOCK, filled.digests)
        return filled

    def _put(self, base: int, span: Span, view: memoryview) -> None:
        """Send a span in as many requests as the link wants."""
        done = 0
        while done < span.length:
            length = min(self._sizer.size, span.length - done)
            start = span.start + done
            checksum = span.checksum
            if length < span.length and checksum is not None:
                compute = self.disk.checksum
                checksum = compute(view[start : start + length], b"") if compute else None
            if self._put_piece(base + start, view[start : start + length], checksum):
                done += length

    def _put_piece(self, offset: int, data: memoryview, checksum: str | None) -> bool:
        """Send one request until it succeeds; False if it has to be cut smaller first."""
        size = len(data)

        def once() -> bool:
            now(At.LIMITED)
            self.limiter.take(size, self._stop)
            now(At.SLOT)
            if size > self._sizer.size:
                return False
            with self._gate.slot(self._stop):
                now(At.WRITING)
                began = self.retrier.now()
                self.disk.put(offset, data, checksum, self._stop)
            self._sizer.took(self.retrier.now() - began, size)
            return True

        sent = self.retrier.call_blocking(once, self._stop, failed=self._failed)
        if sent:
            self._gate.succeeded()
        return sent

    def _failed(self, err: Retryable) -> None:
        if isinstance(err, Throttled | TooSlow):
            self._gate.throttled()
        if isinstance(err, TooSlow):
            self._sizer.timed_out()
        now(At.PAUSED if "status" in err.fields else At.BROKEN)
        self._books.retried()
