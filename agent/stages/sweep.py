"""Stage `sweep`: what jobs left behind, listed; deleted only with `apply`, and only what is provably ours.

The journal says what may exist; a target deletes only what carries the owner tag of that very line (PROTOCOL 7).
A final command's secrets are erased, so what is in a cloud is deleted with the credential of the sweep's own target.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from agent.config import AgentConfig
from agent.errors import AgentError
from agent.journal.leftovers import Leftover
from agent.stages.base import StageContext, StageOutcome
from agent.stages.plugins import make_target
from agent.stages.services import Services
from agent.targets.base import DiskTarget, Intent
from agent.targets.local import KIND as LOCAL_DISK
from agent.targets.local import LocalTarget
from agent.targets.tags import Tagger
from protocol.messages import Output
from protocol.ops import SweepArgs

NEEDS_CREDENTIAL = "needs its cloud's credential: imageport sweep --spec JOB.toml --apply"
NOT_CONFIGURED = "its folder is no longer in the configuration"
DRY = "found"
REMOVED = "removed"
MAX_LISTED = 200
SECRET_IDS = frozenset({"gcp.session"})
"""Kinds of which the id alone lets somebody write: never shown."""


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Lists and removes. Used by the stage and by the local control socket.

    Attributes:
        services / config / tag_key / appliance: Of this appliance.
        target: Connected with a credential; for what is where it writes.
    """

    services: Services
    config: AgentConfig
    tag_key: bytes
    appliance: str
    target: DiskTarget | None = None

    async def sweep(self, *, apply: bool) -> list[dict[str, Any]]:
        """Return one JSON-able row a leftover, with what became of it."""
        rows = []
        for leftover in reversed(await self.services.leftovers()):  # what was made of another first
            if apply and leftover not in await self.services.leftovers():
                continue  # ordered again meanwhile: its job needs it
            row = {**asdict(leftover), "outcome": await self._one(leftover, apply=apply)}
            if leftover.kind in SECRET_IDS:
                row["object_id"] = ""
            rows.append(row)
        return rows[::-1]

    async def _one(self, leftover: Leftover, *, apply: bool) -> str:
        intent = Intent(leftover.kind, leftover.scope, leftover.name)
        try:
            target = await self._target_of(intent)
            if isinstance(target, str) or not apply:
                return target if isinstance(target, str) else DRY
            tagger = Tagger(self.tag_key, self.appliance, leftover.origin, 0)
            reason = await target.discard(intent, leftover.object_id, tagger)
        except AgentError as err:
            return f"{err.code}: {err}"
        if reason is not None:
            return reason
        await self.services.mark_removed(leftover)
        return REMOVED

    async def _target_of(self, intent: Intent) -> DiskTarget | str:
        """Return who can delete it, or why nobody can."""
        if intent.kind == LOCAL_DISK:
            folder = intent.scope.get("account", "")
            known = folder in self.config.targets.local.values()
            return LocalTarget(Path(folder), intent.name) if known else NOT_CONFIGURED
        if self.target is not None and await self.target.covers(intent):
            return self.target
        return NEEDS_CREDENTIAL


class SweepStage:
    """See the module."""

    op: ClassVar[str] = "sweep"

    def __init__(self, services: Services) -> None:
        """Take the appliance's view."""
        self._services = services

    async def run(self, job: StageContext) -> StageOutcome:
        """List, and with `apply` remove."""
        args = job.args if isinstance(job.args, SweepArgs) else SweepArgs()
        target = None if args.target is None else make_target(args.target, job)
        try:
            sweeper = Sweeper(self._services, job.config, job.tag_key, job.appliance, target)
            rows = await sweeper.sweep(apply=args.apply)
        finally:
            if target is not None:
                await target.close()
        removed = sum(row["outcome"] == REMOVED for row in rows)
        value: dict[str, str | int | bool] = {"found": len(rows), "removed": removed}
        return StageOutcome(
            (Output(name="sweep", type="sweep", value=value),),
            report={"leftovers": shown(rows), "applied": args.apply},
        )

    async def clean_up(self, job: StageContext) -> list[str]:  # noqa: ARG002 - it creates nothing
        """Nothing was created."""
        return []


def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most MAX_LISTED rows, those that remain first."""
    return sorted(rows, key=lambda row: bool(row["outcome"] == REMOVED))[:MAX_LISTED]


def make(services: Services) -> SweepStage:
    """Return the stage for this appliance."""
    return SweepStage(services)
