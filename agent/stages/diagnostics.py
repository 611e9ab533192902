"""Stage `diagnostics`: runs the appliance's own checks on order and reports what they found. Repairs nothing."""

from typing import ClassVar

from agent.errors import Permanent
from agent.stages.base import StageContext, StageOutcome
from agent.stages.services import Services
from protocol.messages import Output
from protocol.ops import DiagnosticsArgs


class NoChecks(Permanent):
    """The agent was started without the doctor."""

    code = "diagnostics.none"
    fix = "Start the agent with `imageport agent run`; or run `imageport doctor` on the appliance."


class DiagnosticsStage:
    """See the module."""

    op: ClassVar[str] = "diagnostics"

    def __init__(self, services: Services) -> None:
        """Take the doctor's checks."""
        self._services = services

    async def run(self, job: StageContext) -> StageOutcome:
        """Run the checks that were asked for."""
        if self._services.checks is None:
            raise NoChecks("this agent has no checks to run")
        names = job.args.checks if isinstance(job.args, DiagnosticsArgs) else ()
        findings = await self._services.checks(names)
        failed = sum(finding.get("status") == "fail" for finding in findings)
        value: dict[str, str | int | bool] = {"checks": len(findings), "failed": failed}
        return StageOutcome(
            (Output(name="diagnostics", type="diagnostics", value=value),),
            report={"findings": findings},
        )

    async def clean_up(self, job: StageContext) -> list[str]:  # noqa: ARG002 - it creates nothing
        """Nothing was created."""
        return []


def make(services: Services) -> DiagnosticsStage:
    """Return the stage for this appliance."""
    return DiagnosticsStage(services)
