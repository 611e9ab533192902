"""The way of a disk that takes blocks at any place: the pump, and reading ranges back."""

import random

from agent.stages.plugins import make_retrier
from agent.stages.uploadrun import VERIFY, UploadRun
from agent.targets.base import TargetDisk
from agent.transfer.crew import Stats
from agent.transfer.pump import READERS, Pump
from agent.transfer.verify import MOST_SAMPLED, Verified, Verifier, sampled_blocks
from imaging.units import MiB

_READ_AHEAD = 8 * MiB
"""Bytes read from a server at a time, by as many readers as it takes."""


class BlockWay:
    """See the module."""

    encoding = ""

    def __init__(self, run: UploadRun, disk: TargetDisk) -> None:
        """Write to an open disk."""
        self._run = run
        self._disk = disk

    async def transfer(self) -> Stats:
        """See `Way`."""
        run = self._run
        total = await run.source.data_bytes()
        limits = run.target.limits
        readers = max(READERS, _READ_AHEAD // limits.chunk) if run.source.is_remote else READERS
        pump = Pump(
            source=run.source.image,
            abort=run.source.abort,
            disk=self._disk,
            limits=limits,
            digest=run.digest,
            receipts=run.job.journal,
            limiter=run.job.limiter,
            retrier=make_retrier(run.job, gated=True),
            progress=lambda stats: run.report(total, stats),
            reads_whole=run.source.is_remote,
            readers=readers,
        )
        pump.stats.total = total
        run.report(total, pump.stats)
        return await pump.run()

    async def seal(self) -> None:
        """See `Way`."""
        run = self._run
        await make_retrier(run.job).call(lambda: self._disk.seal(run.digest))

    async def verify(self, *, expected_bytes: int) -> Verified:
        """See `Way`."""
        run = self._run
        sample = run.args.verify == "sample"
        expected_bytes = min(expected_bytes, MOST_SAMPLED) if sample else expected_bytes
        verifier = Verifier(
            disk=self._disk,
            expected=run.digest,
            root=run.root,
            padded_size=run.spec.padded_size,
            retrier=make_retrier(run.job),
            progress=lambda done: run.job.progress(VERIFY, done, max(done, expected_bytes)),
        )
        if not sample:
            return await verifier.full()
        blocks = await run.source.run(lambda: sampled_blocks(run.digest, random.sample))
        return await verifier.sample(blocks)

    async def reject(self) -> None:
        """See `Way`."""
        await make_retrier(self._run.job).call(self._disk.reject)
