"""The way of a disk that is sent as an archive: the packer, and reading its parts back."""

import random

from agent.stages.plugins import make_retrier
from agent.stages.uploadrun import VERIFY, UploadRun
from agent.targets.base import ArchiveDisk
from agent.transfer.crew import Stats
from agent.transfer.packer import Packer
from agent.transfer.parts import Row
from agent.transfer.unpack import ArchiveVerifier
from agent.transfer.verify import Verified


class ArchiveWay:
    """See the module."""

    def __init__(self, run: UploadRun, disk: ArchiveDisk) -> None:
        """Write to an open archive."""
        self._run = run
        self._disk = disk
        self._row = Row()
        self.encoding = disk.format.encoding

    async def transfer(self) -> Stats:
        """See `Way`."""
        run = self._run
        total = await run.source.data_bytes()
        packer = Packer(
            source=run.source.image,
            abort=run.source.abort,
            disk=self._disk,
            limits=run.target.limits,
            padded_size=run.spec.padded_size,
            digest=run.digest,
            receipts=run.job.journal,
            limiter=run.job.limiter,
            retrier=make_retrier(run.job, gated=True),
            progress=lambda stats: run.report(total, stats),
            row=self._row,
        )
        packer.stats.total = total
        run.report(total, packer.stats)
        return await packer.run()

    async def seal(self) -> None:
        """See `Way`."""
        stored, crc = self._row.stored(), self._row.crc32c()
        await make_retrier(self._run.job).call(lambda: self._disk.seal(stored, crc))

    async def verify(self, *, expected_bytes: int) -> Verified:  # noqa: ARG002 - an archive has its own size
        """See `Way`."""
        run = self._run
        source = run.source.image
        check = await run.source.run(
            lambda: self._disk.format.check(
                run.spec.padded_size,
                lambda: source.extents(0, source.size),
                self._row.states(),
                run.digest,
            )
        )
        total = sum(part.size for part in self._row.in_order())
        verifier = ArchiveVerifier(
            disk=self._disk,
            row=self._row,
            check=check,
            expected=run.digest,
            root=run.root,
            retrier=make_retrier(run.job),
            progress=lambda done: run.job.progress(VERIFY, done, total),
        )
        if run.args.verify == "sample":
            return await verifier.sample(random.sample)
        return await verifier.full()

    async def reject(self) -> None:
        """See `Way`."""
        await make_retrier(self._run.job).call(self._disk.reject)
