"""Read back what the target holds and compare it with the digests of what was read from the source.

`full` reads every range that the service says it holds and recomputes the root; ranges that it says were never written
count as zeros (they read as zeros by the service's contract). `sample` reads some blocks: the first and the last that
hold data, and others at random. Padding behind the source's size must read as zeros in both.
"""

import asyncio
import hashlib
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from agent.retry import Retrier
from agent.targets.base import TargetDisk
from agent.transfer.errors import VerifyMismatch
from agent.transfer.pump import first_failure
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder
from imaging.units import MiB

READ = 4 * MiB
"""Most bytes of one read; a multiple of the digest block."""
WORKERS = 4
SAMPLE_BLOCKS = 64
_STEP_BLOCKS = 2048

Range = tuple[int, int]
Pick = Callable[[Sequence[int], int], Sequence[int]]
"""(population, k) -> k distinct members, as `random.sample`."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What reading back proved.

    Attributes:
        mode: `full` or `sample`.
        blocks_read: Digest blocks that were read back and compared.
        bytes_read: Bytes that the target sent for it, padding included.
        root: The root of the whole disk as the target gives it; None for a sample.
    """

    mode: str
    blocks_read: int
    bytes_read: int
    root: str | None


@dataclass(slots=True, kw_only=True)
class Verifier:
    """One verification of one sealed disk; used once. Memory: WORKERS * 4 MiB and one set of digests.

    Attributes:
        disk: Read by `WORKERS` requests at a time.
        expected: The complete digests of the source.
        padded_size: Bytes of the target disk.
        retrier: For failing reads.
        progress: Called with the bytes read so far.
    """

    disk: TargetDisk
    expected: DigestBuilder
    padded_size: int
    retrier: Retrier
    progress: Callable[[int], None]
    _seen: DigestBuilder = field(init=False)
    _blocks: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._seen = DigestBuilder(self.expected.virtual_size)

    async def full(self) -> Verified:
        """Read everything that the target holds.

        Raises:
            VerifyMismatch: With the first differing block found; also if something lies in the padding.
        """
        await self._check_all(self._held_ranges())
        root = self._seen.root()
        if root != self.expected.root():
            msg = f"the target's root is {root}, the source's {self.expected.root()}"
            raise VerifyMismatch(msg, found=root, expected=self.expected.root())
        return Verified("full", self._blocks, self._bytes, root)

    async def sample(self, pick: Pick) -> Verified:
        """Read some blocks that hold data; raises as `full`."""
        await self._check_all(self._sampled_ranges(pick))
        return Verified("sample", self._blocks, self._bytes, None)

    async def _check_all(self, ranges: AsyncIterator[Range]) -> None:
        queue: asyncio.Queue[Range | None] = asyncio.Queue(maxsize=WORKERS)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._check_ranges(queue))
                async for item in ranges:
                    await queue.put(item)
                for _ in range(WORKERS):
                    await queue.put(None)
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures

    async def _held_ranges(self) -> AsyncIterator[Range]:
        """Yield what has to be read, in cells of READ bytes; what reads as zeros is settled on the way."""
        size, next_cell = self.expected.virtual_size, 0
        async for extent in self.disk.allocated(0, self.padded_size):
            if not extent.is_data:
                continue
            if extent.end > size:
                await self._check_padding(max(extent.offset, size), extent.end)
            first = max(extent.offset // READ, next_cell)
            last = -(-min(extent.end, size) // READ)
            if first >= last:
                continue
            self._settle_zeros(next_cell * READ, first * READ)
            for cell in range(first, last):
                yield cell * READ, min(READ, size - cell * READ)
            next_cell = last
        self._settle_zeros(next_cell * READ, size)

    async def _sampled_ranges(self, pick: Pick) -> AsyncIterator[Range]:
        size = self.expected.virtual_size
        async for extent in self.disk.allocated(size, self.padded_size - size):
            if extent.is_data:
                await self._check_padding(extent.offset, extent.end)
        data = self._data_blocks()
        chosen = set(pick(data, min(SAMPLE_BLOCKS, len(data)))) | set(data[:1]) | set(data[-1:])
        for block in sorted(chosen):
            offset = block * DIGEST_BLOCK
            yield offset, min(DIGEST_BLOCK, size - offset)

    def _data_blocks(self) -> "array[int]":
        found = array("Q")
        for first in range(0, self.expected.count, _STEP_BLOCKS):
            count = min(_STEP_BLOCKS, self.expected.count - first)
            digests = self.expected.blocks(first, count)
            if digests == ZERO_BLOCK_DIGEST * count:
                continue
            found.extend(
                first + i
                for i in range(count)
                if digests[i * 32 : i * 32 + 32] != ZERO_BLOCK_DIGEST
            )
        return found

    async def _check_ranges(self, queue: "asyncio.Queue[Range | None]") -> None:
        buffer = bytearray(READ)
        with memoryview(buffer) as view:
            while (item := await queue.get()) is not None:
                offset, length = item
                await self._read(offset, view[:length])
                view[length : -(-length // DIGEST_BLOCK) * DIGEST_BLOCK] = bytes(
                    -length % DIGEST_BLOCK
                )
                self._compare(offset, length, view)
                self.progress(self._bytes)

    async def _read(self, offset: int, view: memoryview) -> None:
        await self.retrier.call(lambda: self.disk.read(offset, view))
        self._bytes += len(view)

    def _compare(self, offset: int, length: int, view: memoryview) -> None:
        for start in range(0, length, DIGEST_BLOCK):
            block = (offset + start) // DIGEST_BLOCK
            digest = hashlib.sha256(view[start : start + DIGEST_BLOCK]).digest()
            if digest != self.expected.blocks(block, 1):
                raise self._mismatch(block, "other bytes than the source")
            self._seen.set_blocks(block, digest)
            self._blocks += 1

    def _settle_zeros(self, start: int, end: int) -> None:
        first, count = start // DIGEST_BLOCK, -(-end // DIGEST_BLOCK) - start // DIGEST_BLOCK
        for block in range(first, first + count, _STEP_BLOCKS):
            step = min(_STEP_BLOCKS, first + count - block)
            digests = self.expected.blocks(block, step)
            if digests != ZERO_BLOCK_DIGEST * step:
                wrong = next(
                    i for i in range(step) if digests[i * 32 : i * 32 + 32] != ZERO_BLOCK_DIGEST
                )
                raise self._mismatch(block + wrong, "nothing, where the source has data")
        if count > 0:
            self._seen.set_zero(first, count)

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
