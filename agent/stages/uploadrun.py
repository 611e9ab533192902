"""UploadRun: one attempt of an upload, and the two ways that a disk goes: block by block, or as an archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.stages.base import StageContext
from agent.stages.source import Source
from agent.targets.base import DiskSpec, DiskTarget
from agent.transfer.crew import Stats
from agent.transfer.verify import Verified
from imaging.digest import DigestBuilder
from protocol.ops import UploadArgs

TRANSFER, VERIFY = "transfer", "verify"
CHECKPOINT_V = 1


@dataclass(slots=True)
class UploadRun:
    """One attempt: what its steps share.

    Attributes:
        root: The digest's root, once everything was read.
        seconds: Step -> seconds, for the report.
    """

    job: StageContext
    args: UploadArgs
    source: Source
    target: DiskTarget
    spec: DiskSpec
    digest: DigestBuilder
    root: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        began = self.job.clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.job.clock() - began, 3)

    def report(self, total: int, stats: Stats) -> None:
        """Tell how far the transfer is."""
        self.job.progress(TRANSFER, stats.done, total, retries=stats.retries, slow=stats.slow)

    def checkpoint(self, encoding: str) -> dict[str, Any]:
        """Return what tells this attempt's receipts from those of another source or grid."""
        grid: dict[str, Any] = {
            "chunk": self.target.limits.chunk,
            "virtual_size": self.spec.virtual_size,
        }
        if encoding:
            grid["encoding"] = encoding
        return {"v": CHECKPOINT_V, **self.source.kept(), "grid": grid}


class Way(Protocol):
    """How the bytes of a disk get there, and back for the proof."""

    @property
    def encoding(self) -> str:
        """What receipts depend on beyond the grid; "" for plain blocks."""
        ...

    async def transfer(self) -> Stats:
        """Send what no receipt names yet; afterwards the run's digest is complete."""
        ...

    async def seal(self) -> None:
        """End the writing. May be called again."""
        ...

    async def verify(self, *, expected_bytes: int) -> Verified:
        """Read back, all or a sample as the job asks; raises VerifyMismatch."""
        ...

    async def reject(self) -> None:
        """Mark what failed verification."""
        ...
