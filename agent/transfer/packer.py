"""The packer: an image as one archive, compressed by several threads in order, sent in parts by several others.

    source -> units, compressed in parallel -> appended in order -> parts -> sent, several at a time -> receipts

Each byte is read once, hashed once and sent once unless a request fails. A receipt says which part stands for which
stretch of the disk and how far the archive was behind it, so a later attempt goes on behind the last part of an
unbroken row; what was sent beyond a gap is sent again (at most `PENDING_MOST`). Memory: `PENDING_MOST` of parts, one
being filled, and the window of `imaging.convert.ordered` (32 MiB).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

import google_crc32c

from agent.errors import Cancelled, Retryable, Throttled, TooSlow
from agent.retry import Retrier
from agent.targets.base import ArchiveDisk, TargetLimits
from agent.threads import Pool, Stop, run_blocking
from agent.transfer.crew import Books, Stats, run_crew
from agent.transfer.flow import CPU, SOURCE, held_back_by
from agent.transfer.gate import Gate
from agent.transfer.limiter import Limiter
from agent.transfer.parts import PackedPart, Row
from agent.transfer.pump import Receipts
from agent.whereabouts import At, Place, now, register
from imaging.convert.archive import ArchiveSink
from imaging.convert.ordered import copy_ordered
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.errors import Stopped
from imaging.units import MiB

PENDING_MOST = 64 * MiB
"""Bytes of parts that are being sent or wait for it; one larger part alone may be."""


@dataclass(slots=True)
class _Ready:
    """One part on its way."""

    part: PackedPart
    data: bytes = field(repr=False)
    data_bytes: int


@dataclass(slots=True, kw_only=True)
class Packer:
    """One archive of one disk; used once.

    Attributes:
        source / abort / digest / receipts / limiter / retrier / progress: As in `Pump`.
        disk: Where the parts go.
        limits: Its target's.
        padded_size: Bytes of the disk in the archive.
        row: The finished parts; complete when `run` returns.
    """

    source: BlockDevice
    abort: Callable[[], None]
    disk: ArchiveDisk
    limits: TargetLimits
    padded_size: int
    digest: DigestBuilder
    receipts: Receipts
    limiter: Limiter
    retrier: Retrier
    progress: Callable[[Stats], None]
    stats: Stats = field(default_factory=Stats)
    row: Row = field(default_factory=Row)

    _stop: Stop = field(default_factory=Stop)
    _gate: Gate = field(init=False)
    _queue: "deque[_Ready | None]" = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _pending: int = 0
    _encoding: int = 0
    _places: list[Place] = field(init=False)
    _books: Books = field(init=False)

    def __post_init__(self) -> None:
        self._books = Books(self.stats, self.progress)
        limits = self.limits
        self._places = [Place() for _ in range(limits.inflight_max)]
        self._gate = Gate(
            start=limits.inflight_start, most=limits.inflight_max, now=self.retrier.now
        )

    async def run(self) -> Stats:
        """Pack and send everything that no unbroken row of receipts holds yet; raises as `Pump.run`."""
        senders = self.limits.inflight_max
        pool = Pool("pack", senders + 1)
        try:
            await run_blocking(pool, self._load, stop=self._stop)
            self.progress(self.stats)
            if not self.row.is_complete:
                works: list[Callable[[], None]] = [self._pack]
                works += [partial(self._send, place) for place in self._places]
                with self._stop.waking(self.abort), self._stop.waking(self._wake):
                    await run_crew(
                        pool, works, self._stop, books=self._books, held_back_by=self._held_back_by
                    )
        finally:
            pool.close()
        self._books.stalled(None)
        return self.stats

    # --- on the loop --------------------------------------------------------------------------------------

    def _held_back_by(self) -> str:
        with self._changed:
            waiting, encoding = self._pending > 0, self._encoding > 0
        if waiting:
            sending = [place.look() for place in self._places if place.at is not At.TURN]
            if sending:
                return held_back_by(sending)
        return CPU if encoding else SOURCE

    def _finished(self, ready: _Ready, tag: str) -> None:
        part = ready.part.tagged(tag)
        self.row.add(part)
        self.receipts.add(part.start, part.end - part.start, part.receipt(self.digest))
        self.stats.done += ready.data_bytes
        self.stats.puts += 1
        self.stats.sent += part.size

    # --- worker threads -----------------------------------------------------------------------------------

    def _load(self) -> None:
        """Take up the unbroken row of parts that earlier attempts finished."""
        found = (PackedPart.read(*receipt) for receipt in self.receipts.load())
        meter, held = _Meter(self.source), self.disk.held
        for part, blocks in found:
            self._stop.check()
            if part is None or not self.row.continues(part):
                break
            if held is not None and part.file_offset + part.size > held:
                break
            count = -(-(min(part.end, self.source.size) - part.start) // DIGEST_BLOCK)
            if count > 0:
                self.digest.set_zero(part.start // DIGEST_BLOCK, count)
            for block, digest in blocks:
                self.digest.set_blocks(block, digest)
            self.row.add(part)
            data_bytes = meter.until(part.end)
            self.stats.done += data_bytes
            self.stats.skipped += data_bytes

    def _pack(self) -> None:
        """Compress what is left and cut it into parts; one thread appends at a time."""
        last = self.row.last
        cutter = _Cutter(self, last)
        source, form = self.source, self.disk.format
        sink = form.sink(
            cutter,
            self.padded_size,
            lambda: source.extents(0, source.size),
            self.row.states(),
        )
        start = min(last.end, self.source.size) if last else 0
        try:
            copy_ordered(
                self.source,
                _Cut(sink, cutter, self, form.stride),
                digest=self.digest,
                stop=self._stop.is_set,
                start=start,
            )
        except Stopped as err:  # no cause of its own: whoever set the flag has it
            raise Cancelled("the work was stopped") from err
        sink.finish()
        cutter.cut(self.padded_size, sink, is_last=True)
        with self._changed:
            self._queue.extend([None] * self.limits.inflight_max)
            self._changed.notify_all()

    def queue(self, ready: _Ready) -> None:
        """Hand a part over, as soon as there is room. From the packing threads."""
        size = len(ready.data)
        with self._changed:
            while self._pending and self._pending + size > PENDING_MOST:
                self._stop.check()
                self._changed.wait()
            self._stop.check()
            self._pending += size
            self._queue.append(ready)
            self._changed.notify_all()

    def _send(self, place: Place) -> None:
        register(place)
        while (ready := self._next()) is not None:
            ready.part.crc32c = int(google_crc32c.value(ready.data))
            tag = self._put(ready)
            with self._changed:
                self._pending -= len(ready.data)
                self._changed.notify_all()
            now(At.TURN)
            self._books.post(partial(self._finished, ready, tag))
            ready.data = b""

    def _next(self) -> _Ready | None:
        with self._changed:
            while not self._queue:
                self._stop.check()
                self._changed.wait()
            return self._queue.popleft()

    def _put(self, ready: _Ready) -> str:
        def once() -> str:
            now(At.LIMITED)
            self.limiter.take(len(ready.data), self._stop)
            now(At.SLOT)
            with self._gate.slot(self._stop):
                now(At.WRITING)
                return self.disk.put_part(
                    ready.part.number, ready.part.file_offset, ready.data, self._stop
                )

        tag = self.retrier.call_blocking(once, self._stop, failed=self._failed)
        self._gate.succeeded()
        return tag

    def count_encoding(self, more: int) -> None:
        """Note that a thread begins (1) or ends (-1) to compress. From the packing threads."""
        with self._changed:
            self._encoding += more

    def _failed(self, err: Retryable) -> None:
        if isinstance(err, Throttled | TooSlow):
            self._gate.throttled()
        now(At.PAUSED if "status" in err.fields else At.BROKEN)
        self._books.retried()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Cutter:
    """The file that the archive is written to: keeps what has come, and cuts it into parts between two strides."""

    path = PurePath("disk.vmdk")

    def __init__(self, packer: Packer, last: PackedPart | None) -> None:
        self._packer = packer
        self._pieces: list[bytes] = []
        self._size = 0
        self._number = last.number + 1 if last else 1
        self._start = last.end if last else 0
        self._file_offset = last.file_offset + last.size if last else 0
        self._meter = _Meter(packer.source, self._start)

    def write(self, offset: int, data: memoryview | bytes) -> None:  # noqa: ARG002 - always its end
        """Take bytes at the end."""
        self._pieces.append(bytes(data))
        self._size += len(data)

    def flush(self) -> None:
        """Nothing is kept back: `cut` follows."""

    def cut_if_full(self, end: int, sink: ArchiveSink) -> None:
        """Cut a part behind a whole stride, once it is large enough."""
        if self._size >= self._packer.disk.part_size(self._number):
            self.cut(end, sink, is_last=False)

    def cut(self, end: int, sink: ArchiveSink, *, is_last: bool) -> None:
        """Cut a part that stands for the disk up to `end`."""
        data = b"".join(self._pieces)
        part = PackedPart(
            number=self._number,
            start=self._start,
            end=end,
            file_offset=self._file_offset,
            size=len(data),
            crc32c=0,
            tag="",
            state=sink.take_state(),
            is_last=is_last,
        )
        self._packer.queue(_Ready(part, data, self._meter.until(end)))
        self._pieces, self._size = [], 0
        self._number += 1
        self._start, self._file_offset = end, self._file_offset + part.size


class _Cut:
    """An ArchiveSink that lets the cutter look after every stride."""

    def __init__(self, sink: ArchiveSink, cutter: _Cutter, packer: Packer, stride: int) -> None:
        self._sink = sink
        self._packer = packer
        self._cutter = cutter
        self._stride = stride
        self.unit = sink.unit

    def encode(self, offset: int, data: memoryview | None) -> Sequence[Any]:
        """As the sink."""
        self._packer.count_encoding(1)
        try:
            return self._sink.encode(offset, data)
        finally:
            self._packer.count_encoding(-1)

    def append(self, offset: int, encoded: Sequence[Any]) -> None:
        """As the sink, then cut."""
        self._sink.append(offset, encoded)
        end = offset + self.unit
        if end % self._stride == 0:
            self._cutter.cut_if_full(end, self._sink)

    def finish(self) -> None:
        """The packer finishes the sink."""


class _Meter:
    """Counts the data bytes of a disk from its beginning to its end."""

    def __init__(self, source: BlockDevice, start: int = 0) -> None:
        length = max(0, source.size - start)
        self._extents = iter(source.extents(min(start, source.size), length))
        self._current = next(self._extents, None)
        self._at = start

    def until(self, end: int) -> int:
        """Return the data bytes between the last `end` and this one."""
        found = 0
        while self._current is not None and self._at < end:
            stop = min(self._current.end, end)
            if self._current.is_data:
                found += max(0, stop - max(self._at, self._current.offset))
            self._at = stop
            if stop == self._current.end:
                self._current = next(self._extents, None)
        self._at = max(self._at, end)
        return found
