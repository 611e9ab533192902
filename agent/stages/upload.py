"""Stage `upload`: an image on a share -> a disk at a target, block by block, digest and proof included.

    share -> file -> image (format) -> pump -> target disk -> seal -> read back -> point of no return -> finish

What survives a crash is in the journal: the checkpoint (which source, which grid), a receipt for every acknowledged
chunk, an intent for every created object. A resumed attempt reads and sends only what has no receipt. A disk that
failed verification is marked, named and kept; the line's next attempt deletes it and begins anew.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from agent.errors import AgentError, Permanent
from agent.stages.base import StageContext, StageOutcome
from agent.stages.plugins import make_retrier, make_target
from agent.stages.source import Source
from agent.targets.base import Artifact, DiskSpec, DiskTarget, Intent, TargetDisk, TargetLimits
from agent.targets.errors import SizeUnsupported
from agent.targets.tags import Tagger
from agent.transfer.errors import VerifyMismatch
from agent.transfer.limiter import Limiter
from agent.transfer.pump import Pump, PumpStats
from agent.transfer.verify import MOST_SAMPLED, Verified, Verifier, sampled_blocks
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.units import round_up
from protocol.messages import Output
from protocol.ops import UploadArgs

TRANSFER, VERIFY = "transfer", "verify"
CHECKPOINT_V = 1


@dataclass(slots=True)
class _Run:
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


class UploadStage:
    """See the module."""

    op: ClassVar[str] = "upload"

    async def run(self, job: StageContext) -> StageOutcome:
        """Upload, or go on with it."""
        args = _narrow(job)
        async with _source(job, args) as source, _target(job, args) as target:
            _require_same_source(job, source)
            if (job.journal.load_checkpoint() or {}).get("rejected"):
                await _discard(job, target)  # what cannot go is refused by `open`, by name
            spec = _spec(job, args, source, target.limits)
            disk = await target.open(spec, job.journal)
            try:
                with closing(DigestBuilder(source.image.size, folder=job.config.state)) as digest:
                    return await _upload(_Run(job, args, source, target, spec, digest), disk)
            finally:
                await disk.close()

    async def clean_up(self, job: StageContext) -> list[str]:
        """Delete what this line of jobs created."""
        async with _target(job, _narrow(job)) as target:
            return await _discard(job, target)


async def _upload(run: _Run, disk: TargetDisk) -> StageOutcome:
    job = run.job
    await _take_up(run, disk)
    with run.step(TRANSFER):
        stats = await _transfer(run, disk)
        await run.source.check_unchanged()
        await job.journal.flush()
        run.root = await run.source.run(run.digest.root)
        await make_retrier(job).call(lambda: disk.seal(run.digest))
    with run.step(VERIFY):
        held = DIGEST_BLOCK * await run.source.run(run.digest.count_data)
        verified = await _verify(run, disk, expected_bytes=min(stats.done, held))
    await job.journal.point_of_no_return()
    artifact = await make_retrier(job).call(disk.finish)
    return _outcome(run, stats, verified, artifact)


async def _take_up(run: _Run, disk: TargetDisk) -> None:
    """Decide what earlier attempts are worth: the same grid and object, or nothing."""
    job = run.job
    now = _checkpoint(run)
    before = job.journal.load_checkpoint()
    if not disk.resumed or before is None or before.get("grid") != now["grid"]:
        await job.journal.forget_receipts()
    await job.journal.checkpoint(now)


def _require_same_source(job: StageContext, source: Source) -> None:
    """Before anything is created or written: is it the file that this line of jobs began with?"""
    before = job.journal.load_checkpoint()
    if before is not None and before.get("v") == CHECKPOINT_V:
        source.require_as_before(before)


def _checkpoint(run: _Run) -> dict[str, Any]:
    grid = {"chunk": run.target.limits.chunk, "virtual_size": run.spec.virtual_size}
    return {"v": CHECKPOINT_V, **run.source.kept(), "grid": grid}


async def _transfer(run: _Run, disk: TargetDisk) -> PumpStats:
    job = run.job
    total = await run.source.data_bytes()

    def report(stats: PumpStats) -> None:
        job.progress(TRANSFER, stats.done, total, retries=stats.retries, slow=stats.slow)

    pump = Pump(
        source=run.source.image,
        abort=run.source.abort,
        disk=disk,
        limits=run.target.limits,
        digest=run.digest,
        receipts=job.journal,
        limiter=Limiter(run.args.bandwidth, now=job.clock, parent=job.limiter),
        retrier=make_retrier(job),
        progress=report,
        reads_whole=run.source.is_remote,
    )
    pump.stats.total = total
    report(pump.stats)
    return await pump.run()


async def _verify(run: _Run, disk: TargetDisk, *, expected_bytes: int) -> Verified | None:
    if run.args.verify == "none":
        run.job.warn("upload.not-verified", "the disk was not read back (verify = none)")
        return None
    if run.args.verify == "sample":
        expected_bytes = min(expected_bytes, MOST_SAMPLED)
    verifier = Verifier(
        disk=disk,
        expected=run.digest,
        root=run.root,
        padded_size=run.spec.padded_size,
        retrier=make_retrier(run.job),
        progress=lambda done: run.job.progress(VERIFY, done, max(done, expected_bytes)),
    )
    try:
        if run.args.verify == "sample":
            blocks = await run.source.run(lambda: sampled_blocks(run.digest, random.sample))
            return await verifier.sample(blocks)
        return await verifier.full()
    except VerifyMismatch:
        await _reject(run, disk)
        raise


async def _reject(run: _Run, disk: TargetDisk) -> None:
    """Nothing of a wrong disk is worth a retry, and nobody may take it for a finished one."""
    job = run.job
    await job.journal.checkpoint({**_checkpoint(run), "rejected": True})
    await job.journal.forget_receipts()
    try:
        await make_retrier(job).call(disk.reject)
    except AgentError as err:
        job.warn("upload.not-marked", f"the wrong disk could not be marked: {err}")


async def _discard(job: StageContext, target: DiskTarget) -> list[str]:
    """Delete what this line of jobs created; return what is left, in words for people."""
    left: list[str] = []
    for known in reversed(job.journal.intents()):  # what was made of another goes first
        intent = Intent(known.kind, known.scope, known.name)
        reason = await target.discard(intent, known.object_id, _tagger(job))
        if reason is None:
            await job.journal.removed(intent)
        else:
            left.append(reason)
    return left


def _outcome(
    run: _Run, stats: PumpStats, verified: Verified | None, artifact: Artifact
) -> StageOutcome:
    value: dict[str, str | int | bool] = {
        **artifact.properties,
        "id": artifact.object_id,
        "virtual_size": run.spec.virtual_size,
        "padded_size": run.spec.padded_size,
        "root": run.root,
    }
    info = run.source.image.info
    report: dict[str, Any] = {
        "source": {"path": run.args.path, "format": info.format, "subformat": info.subformat},
        "virtual_size": run.spec.virtual_size,
        "padded_size": run.spec.padded_size,
        "transfer": asdict(stats),
        "verified": None if verified is None else asdict(verified),
        "seconds": run.seconds,
    }
    return StageOutcome((Output(name="disk", type=artifact.kind, value=value),), run.root, report)


def _spec(job: StageContext, args: UploadArgs, source: Source, limits: TargetLimits) -> DiskSpec:
    size = source.image.size
    padded = max(round_up(size, limits.granularity), round_up(limits.min_size, limits.granularity))
    if padded > limits.max_size:
        kind = args.target.__struct_config__.tag
        msg = f"{args.path} is a disk of {size} bytes, {kind} takes at most {limits.max_size}"
        raise SizeUnsupported(msg, virtual_size=size, most=limits.max_size)
    for warning in source.image.info.warnings:
        job.warn("image.warning", str(warning))
    return DiskSpec(size, padded, args.if_exists, _tagger(job))


def _tagger(job: StageContext) -> Tagger:
    return Tagger(job.tag_key, job.appliance, job.origin, job.attempt)


def _narrow(job: StageContext) -> UploadArgs:
    if not isinstance(job.args, UploadArgs):
        raise UploadArgsExpected(f"the upload stage was given {type(job.args).__name__}")
    return job.args


class UploadArgsExpected(Permanent):
    """The stage was started for another op: a defect of the agent."""

    code = "job.wrong-stage"
    exit_code = 70
    fix = "Report this with the appliance's support bundle."


@asynccontextmanager
async def _source(job: StageContext, args: UploadArgs) -> AsyncIterator[Source]:
    source = await Source.open(args.source, args.path, job, image_format=args.format)
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def _target(job: StageContext, args: UploadArgs) -> AsyncIterator[DiskTarget]:
    target = make_target(args.target, job)
    try:
        yield target
    finally:
        await target.close()


STAGE = UploadStage()
