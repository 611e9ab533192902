"""Stage `sweep`: what jobs left behind, listed; deleted only with `apply`, and only what is provably ours.

The journal says what may exist; a target deletes only what carries the owner tag of that very line (PROTOCOL 7).
Objects whose deletion needs a credential are only listed: a final command's secrets are erased.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from agent.config import AgentConfig
from agent.errors import AgentError
from agent.journal.leftovers import Leftover
from agent.stages.base import StageContext, StageOutcome
from agent.stages.services import Services
from agent.targets.base import Intent
from agent.targets.local import KIND as LOCAL_DISK
from agent.targets.local import LocalTarget
from agent.targets.tags import Tagger
from protocol.messages import Output
from protocol.ops import SweepArgs

NEEDS_CREDENTIAL = (
    "its credential is gone with its job: retry the job and cancel it, or delete it by hand"
)
NOT_CONFIGURED = "its folder is no longer in the configuration"
DRY = "found"
REMOVED = "removed"
MAX_LISTED = 200


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Lists and removes. Used by the stage and by the local control socket."""

    services: Services
    config: AgentConfig
    tag_key: bytes
    appliance: str

    async def sweep(self, *, apply: bool) -> list[dict[str, Any]]:
        """Return one JSON-able row a leftover, with what became of it."""
        return [
            {**asdict(leftover), "outcome": await self._one(leftover, apply=apply)}
            for leftover in await self.services.leftovers()
        ]

    async def _one(self, leftover: Leftover, *, apply: bool) -> str:
        if leftover.kind != LOCAL_DISK:
            return NEEDS_CREDENTIAL
        folder = leftover.scope.get("account", "")
        if folder not in self.config.targets.local.values():
            return NOT_CONFIGURED
        if not apply:
            return DRY
        return await self._remove(leftover, folder)

    async def _remove(self, leftover: Leftover, folder: str) -> str:
        intent = Intent(leftover.kind, leftover.scope, leftover.name)
        tagger = Tagger(self.tag_key, self.appliance, leftover.origin, 0)
        try:
            target = LocalTarget(Path(folder), leftover.name)
            reason = await target.discard(intent, leftover.object_id, tagger)
        except AgentError as err:
            return str(err)
        if reason is not None:
            return reason
        await self.services.mark_removed(leftover)
        return REMOVED


class SweepStage:
    """See the module."""

    op: ClassVar[str] = "sweep"

    def __init__(self, services: Services) -> None:
        """Take the appliance's view."""
        self._services = services

    async def run(self, job: StageContext) -> StageOutcome:
        """List, and with `apply` remove."""
        apply = isinstance(job.args, SweepArgs) and job.args.apply
        sweeper = Sweeper(self._services, job.config, job.tag_key, job.appliance)
        rows = await sweeper.sweep(apply=apply)
        removed = sum(row["outcome"] == REMOVED for row in rows)
        value: dict[str, str | int | bool] = {"found": len(rows), "removed": removed}
        return StageOutcome(
            (Output(name="sweep", type="sweep", value=value),),
            report={"leftovers": rows[:MAX_LISTED], "applied": apply},
        )

    async def clean_up(self, job: StageContext) -> list[str]:  # noqa: ARG002 - it creates nothing
        """Nothing was created."""
        return []


def make(services: Services) -> SweepStage:
    """Return the stage for this appliance."""
    return SweepStage(services)
