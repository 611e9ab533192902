"""Read an archive back part by part, inflate it, and compare every block with the digests of the source."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import first_failure
from agent.retry import Retrier
from agent.targets.base import ArchiveDisk
from agent.threads import Pool, Stop, run_blocking
from agent.transfer.errors import VerifyMismatch
from agent.transfer.parts import PackedPart, Row
from agent.transfer.verify import Verified
from imaging.convert.archive import ArchivePiece, Differs, PieceCheck
from imaging.digest import DIGEST_BLOCK, DigestBuilder

WORKERS = 2
"""Parts read at a time; inflating and hashing them needs a core each."""
SAMPLE_PARTS = 8


@dataclass(slots=True, kw_only=True)
class ArchiveVerifier:
    """One verification of one sealed archive; used once. Memory: WORKERS parts, and the check's own.

    Attributes:
        disk: The archive.
        row: Its parts.
        check: What compares a part with the source.
        expected: The complete digests of the source.
        root: Their root.
        retrier: For failing reads.
        progress: Called with the bytes read so far.
    """

    disk: ArchiveDisk
    row: Row
    check: PieceCheck
    expected: DigestBuilder
    root: str
    retrier: Retrier
    progress: Callable[[int], None]
    _blocks: int = 0
    _bytes: int = 0

    async def full(self) -> Verified:
        """Read every part.

        Raises:
            VerifyMismatch: With the first differing block found.
        """
        await self._check_all(self.row.in_order())
        count = self.expected.count_data()
        if self._blocks != count:
            msg = f"{self._blocks} digest blocks of data were compared, the source has {count}"
            raise VerifyMismatch(msg, found=self._blocks, expected=count)
        return Verified("full", self._blocks, self._bytes, self.root)

    async def sample(self, pick: Callable[[list[PackedPart], int], list[PackedPart]]) -> Verified:
        """Read the first and the last part, and some that `pick` takes (as `random.sample`)."""
        parts = self.row.in_order()
        chosen = {part.number: part for part in pick(parts, min(SAMPLE_PARTS, len(parts)))}
        chosen |= {part.number: part for part in (parts[0], parts[-1])}
        await self._check_all([chosen[number] for number in sorted(chosen)])
        return Verified("sample", self._blocks, self._bytes, None)

    async def _check_all(self, parts: list[PackedPart]) -> None:
        pool, stop = Pool("unpack", WORKERS), Stop()
        waiting = iter(parts)

        async def work() -> None:
            for part in waiting:
                data = await self.retrier.call(
                    lambda part=part: self.disk.read(part.file_offset, part.size)  # type: ignore[misc]  # bound now
                )
                piece = ArchivePiece(
                    part.start, part.end, part.number == 1, part.is_last, part.file_offset
                )
                compared = await run_blocking(
                    pool,
                    lambda piece=piece, data=data: _checked(self.check, piece, data),  # type: ignore[misc]  # bound now
                    stop=stop,
                )
                self._blocks += compared  # not across the await: two workers count
                self._bytes += len(data)
                self.progress(self._bytes)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures
        finally:
            pool.close()


def _checked(check: PieceCheck, piece: ArchivePiece, data: bytes) -> int:
    try:
        return check.check(piece, data)
    except Differs as err:
        if err.block < 0:
            msg = f"the archive holds {err} in the part of byte {piece.start} of the disk"
            raise VerifyMismatch(msg, offset=piece.start) from err
        offset = err.block * DIGEST_BLOCK
        msg = f"the archive holds {err} in digest block {err.block} (at byte {offset})"
        raise VerifyMismatch(msg, block=err.block, offset=offset) from err
