"""Stage `upload`: an image on a share -> a disk at a target, block by block, digest and proof included.

    share -> file -> image (format) -> pump -> target disk -> seal -> read back -> point of no return -> finish

What survives a crash is in the journal: the checkpoint (which source, which grid), a receipt for every acknowledged
chunk, an intent for every created object. A resumed attempt reads and sends only what has no receipt. A disk that
failed verification is marked, named and kept; the line's next attempt deletes it and begins anew.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from agent.errors import AgentError, Permanent
from agent.stages.archiveway import ArchiveWay
from agent.stages.base import StageContext, StageOutcome
from agent.stages.blockway import BlockWay
from agent.stages.plugins import make_retrier, make_target
from agent.stages.source import Source
from agent.stages.uploadrun import CHECKPOINT_V, TRANSFER, VERIFY, UploadRun, Way
from agent.targets.base import (
    ArchiveDisk,
    Artifact,
    DiskSpec,
    DiskTarget,
    Intent,
    TargetDisk,
    TargetLimits,
)
from agent.targets.errors import ContentDiffers, SizeUnsupported
from agent.targets.tags import Tagger
from agent.transfer.errors import VerifyMismatch
from agent.transfer.rates import note_rate
from agent.transfer.verify import Verified
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.units import round_up
from protocol.messages import Output
from protocol.ops import UploadArgs


class UploadStage:
    """See the module."""

    op: ClassVar[str] = "upload"

    async def run(self, job: StageContext) -> StageOutcome:
        """Upload, or go on with it."""
        args = narrow(job)
        async with _source(job, args) as source, _target(job, args) as target:
            _require_same_source(job, source)
            if (job.journal.load_checkpoint() or {}).get("rejected"):
                await _discard(job, target)  # what cannot go is refused by `open`, by name
            spec = spec_for(job, args, source, target.limits)
            disk = await target.open(spec, job.journal)
            try:
                with closing(DigestBuilder(source.image.size, folder=job.config.state)) as digest:
                    return await _upload(UploadRun(job, args, source, target, spec, digest), disk)
            finally:
                await disk.close()

    async def clean_up(self, job: StageContext) -> list[str]:
        """Delete what this line of jobs created."""
        async with _target(job, narrow(job)) as target:
            return await _discard(job, target)


@dataclass(frozen=True, slots=True)
class _Done:
    """What is proven, as a checkpoint keeps it: an attempt that only has to finish reads and sends nothing again."""

    root: str
    transfer: dict[str, Any]
    verified: dict[str, Any] | None
    seconds: dict[str, float]


async def _upload(run: UploadRun, disk: TargetDisk | ArchiveDisk) -> StageOutcome:
    job, way = run.job, _way_of(run, disk)
    done = await _take_up(run, way, resumed=disk.resumed)
    if done is None:
        done = await _send_and_prove(run, way)
        await job.journal.checkpoint({**run.checkpoint(way.encoding), "proven": asdict(done)})
    await job.journal.point_of_no_return()
    artifact = await make_retrier(job).call(disk.finish)
    return _outcome(run, done, artifact)


def _way_of(run: UploadRun, disk: TargetDisk | ArchiveDisk) -> Way:
    return ArchiveWay(run, disk) if isinstance(disk, ArchiveDisk) else BlockWay(run, disk)


async def _send_and_prove(run: UploadRun, way: Way) -> _Done:
    job = run.job
    with run.step(TRANSFER):
        stats = await way.transfer()
        await run.source.check_unchanged()
        await job.journal.flush()
        run.root = await run.source.run(run.digest.root)
    note_rate(
        job.config.state, run.target.kind, stats.sent, run.seconds[TRANSFER], now_ms=job.now_ms()
    )
    try:
        await way.seal()
        with run.step(VERIFY):
            held = DIGEST_BLOCK * await run.source.run(run.digest.count_data)
            verified = await _verify(run, way, expected_bytes=min(stats.done, held))
    except (VerifyMismatch, ContentDiffers):
        await _reject(run, way)
        raise
    proof = None if verified is None else asdict(verified)
    return _Done(run.root, asdict(stats), proof, run.seconds)


async def _take_up(run: UploadRun, way: Way, *, resumed: bool) -> _Done | None:
    """Decide what earlier attempts are worth: the same grid and object, or nothing; return what they proved."""
    journal = run.job.journal
    now, before = run.checkpoint(way.encoding), journal.load_checkpoint()
    same = resumed and before is not None and before.get("grid") == now["grid"]
    if not same:
        await journal.forget_receipts()
    elif before is not None and "proven" in before:
        return _Done(**before["proven"])
    await journal.checkpoint(now)
    return None


def _require_same_source(job: StageContext, source: Source) -> None:
    """Before anything is created or written: is it the file that this line of jobs began with?"""
    before = job.journal.load_checkpoint()
    if before is not None and before.get("v") == CHECKPOINT_V:
        source.require_as_before(before)


async def _verify(run: UploadRun, way: Way, *, expected_bytes: int) -> Verified | None:
    if run.args.verify == "none":
        run.job.warn("upload.not-verified", "the disk was not read back (verify = none)")
        return None
    return await way.verify(expected_bytes=expected_bytes)


async def _reject(run: UploadRun, way: Way) -> None:
    """Nothing of a wrong disk is worth a retry, and nobody may take it for a finished one."""
    job = run.job
    await job.journal.checkpoint({**run.checkpoint(way.encoding), "rejected": True})
    await job.journal.forget_receipts()
    try:
        await way.reject()
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


def _outcome(run: UploadRun, done: _Done, artifact: Artifact) -> StageOutcome:
    value: dict[str, str | int | bool] = {
        **artifact.properties,
        "id": artifact.object_id,
        "virtual_size": run.spec.virtual_size,
        "padded_size": run.spec.padded_size,
        "root": done.root,
    }
    info = run.source.image.info
    report: dict[str, Any] = {
        "source": {"path": run.args.path, "format": info.format, "subformat": info.subformat},
        "virtual_size": run.spec.virtual_size,
        "padded_size": run.spec.padded_size,
        "transfer": done.transfer,
        "verified": done.verified,
        "seconds": done.seconds,
    }
    output = Output(name="disk", type=artifact.kind, value=value)
    return StageOutcome((output,), done.root, report)


def spec_for(job: StageContext, args: UploadArgs, source: Source, limits: TargetLimits) -> DiskSpec:
    """Return the disk to make of a source; raises SizeUnsupported."""
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


def narrow(job: StageContext) -> UploadArgs:
    """Return the arguments of an upload, or of a preflight for one."""
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
