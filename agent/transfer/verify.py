"""Read back what the target holds and compare it with the digests of what was read from the source.

`full` reads every range that the service says it holds and compares every block of the disk; ranges that it says were
never written count as zeros (they read as zeros by the service's contract) and are not asked for. `sample` reads some
blocks: the first and the last that hold data, and others at random. Padding behind the source's size must read as
zeros in both.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.errors import Retryable, first_failure
from agent.retry import Retrier
from agent.targets.base import TargetDisk
from agent.transfer.errors import VerifyMismatch
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.extent import Extent
from imaging.units import KiB, MiB, round_up

READ = 4 * MiB
"""Most bytes of one read; a multiple of the digest block."""
MERGE_GAP = 256 * KiB
"""A gap up to this is read along: its bytes cost less than the round trip of a second request (2.5 ms at 100 MiB/s)."""
WORKERS = 4
SAMPLE_BLOCKS = 64
MOST_SAMPLED = (SAMPLE_BLOCKS + 2) * DIGEST_BLOCK
"""Bytes that a sample reads at most."""

Range = tuple[int, int]
"""(offset, length)"""
Pick = Callable[[Sequence[int], int], Sequence[int]]
"""(population, k) -> k distinct members, as `random.sample`."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What reading back proved.

    Attributes:
        mode: `full` or `sample`.
        blocks_read: Digest blocks of which something was read back and compared.
        bytes_read: Bytes that the target sent for it, padding included.
        root: The root of the whole disk: every block of the target has the source's digest; None for a sample.
    """

    mode: str
    blocks_read: int
    bytes_read: int
    root: str | None


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring digest blocks, each with something to read.

    Attributes:
        offset: First byte, a multiple of the digest block.
        length: Bytes, at most READ; less than whole blocks only at the end of the disk.
        reads: What to ask for, ordered; the rest reads as zeros.
    """

    offset: int
    length: int
    reads: tuple[Range, ...]


@dataclass(slots=True, kw_only=True)
class Verifier:
    """One verification of one sealed disk; used once. Memory: WORKERS * 4 MiB, whatever the disk's size.

    Attributes:
        disk: Read by `WORKERS` requests at a time.
        expected: The complete digests of the source.
        root: Their root; given, because hashing 64 MiB of digests a TiB is no work for the event loop.
        padded_size: Bytes of the target disk.
        retrier: For failing reads.
        progress: Called with the bytes read so far.
    """

    disk: TargetDisk
    expected: DigestBuilder
    root: str
    padded_size: int
    retrier: Retrier
    progress: Callable[[int], None]
    _blocks: int = 0
    _zero_blocks: int = 0
    _bytes: int = 0

    async def full(self) -> Verified:
        """Read everything that the target holds.

        Raises:
            VerifyMismatch: With the first differing block found; also if something lies in the padding.
        """
        await self._check_all(self._held_runs())
        compared = (
            self._blocks + self._zero_blocks
        )  # none counts twice: runs and gaps never overlap
        if compared != self.expected.count:
            msg = f"{compared} digest blocks were compared, the source has {self.expected.count}"
            raise VerifyMismatch(msg, found=compared, expected=self.expected.count)
        return Verified("full", self._blocks, self._bytes, self.root)

    async def sample(self, blocks: Iterable[int]) -> Verified:
        """Read these blocks (`sampled_blocks`), ordered; raises as `full`."""
        await self._check_all(self._sampled_runs(blocks))
        return Verified("sample", self._blocks, self._bytes, None)

    async def _check_all(self, runs: AsyncIterator[_Run]) -> None:
        queue: asyncio.Queue[_Run | None] = asyncio.Queue(maxsize=WORKERS)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._check_runs(queue))
                async for run in runs:
                    await queue.put(run)
                for _ in range(WORKERS):
                    await queue.put(None)
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures

    async def _held_runs(self) -> AsyncIterator[_Run]:
        """Yield what has to be read, no run over a border of READ bytes; what reads as zeros is settled on the way."""
        size = self.expected.virtual_size
        start = end = 0
        reads: list[Range] = []
        async for offset, length in self._held_pieces():
            first = offset // DIGEST_BLOCK * DIGEST_BLOCK
            if first > end or first // READ != start // READ:
                if reads:
                    yield _Run(start, min(end, size) - start, tuple(reads))
                self._settle_zeros(end, first)
                start, reads = first, []
            _merge(reads, offset, length)
            end = round_up(offset + length, DIGEST_BLOCK)
        if reads:
            yield _Run(start, min(end, size) - start, tuple(reads))
        self._settle_zeros(end, size)

    async def _held_pieces(self) -> AsyncIterator[Range]:
        """Yield what the target holds of the source's bytes, cut at every READ bytes; the padding is checked here."""
        size, done = self.expected.virtual_size, 0
        async for extent in self._extents(0, self.padded_size):
            if not extent.is_data:
                continue
            end = min(extent.end, size)
            offset = max(extent.offset, done)  # a service that tells a range twice is read once
            while offset < end:
                length = min(end, offset // READ * READ + READ) - offset
                yield offset, length
                done = offset = offset + length
            if extent.end > size:
                await self._check_padding(max(extent.offset, size), extent.end)

    async def _extents(self, at: int, length: int) -> AsyncIterator[Extent]:
        """Yield what the target describes; a description that breaks off is asked for again from there."""
        end = at + length
        found = self.disk.allocated(at, length)

        async def following() -> Extent | None:
            nonlocal found
            try:
                return await anext(found, None)
            except Retryable:
                found = self.disk.allocated(at, end - at)
                raise

        while at < end and (extent := await self.retrier.call(following)) is not None:
            yield extent
            at = max(at, extent.end)

    async def _sampled_runs(self, blocks: Iterable[int]) -> AsyncIterator[_Run]:
        size = self.expected.virtual_size
        async for extent in self._extents(size, self.padded_size - size):
            if extent.is_data:
                await self._check_padding(extent.offset, extent.end)
        for block in blocks:
            offset = block * DIGEST_BLOCK
            length = min(DIGEST_BLOCK, size - offset)
            yield _Run(offset, length, ((offset, length),))

    async def _check_runs(self, queue: "asyncio.Queue[_Run | None]") -> None:
        buffer = bytearray(READ)
        with memoryview(buffer) as view:
            while (run := await queue.get()) is not None:
                await self._fill(run, view)
                self._compare(run, view)
                self.progress(self._bytes)

    async def _fill(self, run: _Run, view: memoryview) -> None:
        done = 0
        for offset, length in run.reads:
            at = offset - run.offset
            view[done:at] = bytes(at - done)
            done = at + length
            await self._read(offset, view[at:done])
        end = round_up(run.length, DIGEST_BLOCK)
        view[done:end] = bytes(end - done)

    async def _read(self, offset: int, view: memoryview) -> None:
        await self.retrier.call(lambda: self.disk.read(offset, view))
        self._bytes += len(view)

    def _compare(self, run: _Run, view: memoryview) -> None:
        for start in range(0, run.length, DIGEST_BLOCK):
            block = (run.offset + start) // DIGEST_BLOCK
            digest = hashlib.sha256(view[start : start + DIGEST_BLOCK]).digest()
            if digest != self.expected.blocks(block, 1):
                raise self._mismatch(block, "other bytes than the source")
            self._blocks += 1

    def _settle_zeros(self, start: int, end: int) -> None:
        """Check that the source has zeros from `start` (a block's border, perhaps behind `end`) to `end`."""
        first = start // DIGEST_BLOCK
        count = max(0, -(-end // DIGEST_BLOCK) - first)
        wrong = next(self.expected.data_blocks(first, count), None)
        if wrong is not None:
            raise self._mismatch(wrong, "nothing, where the source has data")
        self._zero_blocks += count

    async def _check_padding(self, start: int, end: int) -> None:
        for offset in range(start, end, READ):
            buffer = bytearray(min(READ, end - offset))
            await self._read(offset, memoryview(buffer))
            if buffer != bytes(len(buffer)):
                msg = f"the padding at byte {offset} (behind the source's {self.expected.virtual_size}) is not zero"
                raise VerifyMismatch(msg, offset=offset)

    def _mismatch(self, block: int, found: str) -> VerifyMismatch:
        offset = block * DIGEST_BLOCK
        msg = f"the target holds {found} in digest block {block} (at byte {offset})"
        return VerifyMismatch(msg, block=block, offset=offset)


def sampled_blocks(expected: DigestBuilder, pick: Pick) -> list[int]:
    """Return the blocks that a sample reads: the first and the last that hold data, and what `pick` takes of them all.

    Two passes over the digests, so that memory does not grow with the disk. Blocking: some tenths of a second a TiB.
    """
    count = expected.count_data()
    ranks = {*pick(range(count), min(SAMPLE_BLOCKS, count)), *range(count)[:1], *range(count)[-1:]}
    blocks = enumerate(expected.data_blocks(0, expected.count))
    return [block for rank, block in blocks if rank in ranks]


def _merge(reads: list[Range], offset: int, length: int) -> None:
    """Add a piece behind the others, as part of the last read if the gap to it is small."""
    if reads and offset - sum(reads[-1]) <= MERGE_GAP:
        first = reads[-1][0]
        reads[-1] = (first, offset + length - first)
    else:
        reads.append((offset, length))
