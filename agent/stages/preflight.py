"""Stage `preflight`: what an upload would create, send, need and cost. Looks and asks; changes nothing."""

import math
from dataclasses import asdict
from typing import Any, ClassVar

from agent.errors import AgentError
from agent.stages.base import StageContext, StageOutcome
from agent.stages.plugins import make_target
from agent.stages.source import Source
from agent.stages.upload import narrow, spec_for
from agent.targets.base import DiskSpec, DiskTarget
from agent.targets.prices import DATE, estimate
from agent.transfer.rates import last_rate
from agent.transfer.verify import MOST_SAMPLED
from protocol.messages import Output
from protocol.ops import UploadArgs


class PreflightStage:
    """See the module."""

    op: ClassVar[str] = "preflight"

    async def run(self, job: StageContext) -> StageOutcome:
        """Find out."""
        args = narrow(job)
        source = await Source.open(args.source, args.path, job, image_format=args.format)
        try:
            target = make_target(args.target, job)
            try:
                data = await source.data_bytes()
                spec = spec_for(job, args, source, target.limits)
                plan = await _plan(job, args, target, spec, data)
            finally:
                await target.close()
            info = source.image.info
            plan["source"] = {"path": args.path, "format": info.format, "subformat": info.subformat}
        finally:
            await source.close()
        value: dict[str, str | int | bool] = {
            "ready": not plan["missing"] and not plan["problems"],
            "bytes": data,
            "padded_size": spec.padded_size,
        }
        output = Output(name="plan", type="upload-plan", value=value)
        return StageOutcome((output,), report={"plan": plan})

    async def clean_up(self, job: StageContext) -> list[str]:  # noqa: ARG002 - it creates nothing
        """Nothing was created."""
        return []


async def _plan(
    job: StageContext, args: UploadArgs, target: DiskTarget, spec: DiskSpec, data: int
) -> dict[str, Any]:
    """Return the plan; what would stop the job is a problem of it, not its end."""
    found: dict[str, Any] = {"name": "", "objects": (), "missing": (), "unprobed": ()}
    problems: list[dict[str, str]] = []
    try:
        found = asdict(await target.preflight(spec))
    except AgentError as err:
        problems.append({"code": err.code, "message": str(err), "fix": err.fix})
    rate = last_rate(job.config.state, target.kind)
    limits = [one for one in (args.bandwidth, job.limiter.lowest) if one is not None]
    effective = min([*limits, *([rate] if rate else [])], default=None)
    read_back = {"full": data, "sample": min(data, MOST_SAMPLED), "none": 0}[args.verify]
    result = getattr(args.target, "result", "")
    cost = estimate(
        target.kind, data=data, padded=spec.padded_size, read_back=read_back, result=result
    )
    return {
        **{key: value if isinstance(value, str) else list(value) for key, value in found.items()},
        "problems": problems,
        "virtual_size": spec.virtual_size,
        "padded_size": spec.padded_size,
        "bytes": data,
        "requests": math.ceil(data / target.limits.chunk),
        "read_back": read_back,
        "rate": effective,
        "rate_measured": rate,
        "minutes": None if not effective else round((data + read_back) / effective / 60, 1),
        "cost_usd": cost,
        "prices_of": DATE if cost else None,
    }


STAGE = PreflightStage()
