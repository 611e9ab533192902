"""The doctor for others than the command line: the agent's `diagnostics` job and the support bundle. Prints nothing."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from appliance.doctor.base import (
    DEFAULT_TIMEOUT_S,
    Context,
    Finding,
    Options,
    Status,
    read_config,
)
from appliance.doctor.registry import choose
from appliance.doctor.run import examine, summary, worst


async def consult(
    names: tuple[str, ...],
    *,
    config_file: Path | None,
    wall: Callable[[], float],
    options: Options | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> list[Finding]:
    """Carry out the named checks, none: all.

    Raises:
        UnknownCheck.
    """
    checks = choose(names)
    context = Context(read_config(config_file), options or Options(), wall)
    return await examine(checks, context, timeout_s=timeout_s)


def report(findings: list[Finding]) -> dict[str, Any]:
    """Return findings as the plain values of `doctor/1`."""
    return {
        "ok": worst(findings) is not Status.FAIL,
        "summary": summary(findings),
        "findings": [finding.as_json() for finding in findings],
    }


def agent_checks(
    config_file: Path | None, wall: Callable[[], float]
) -> Callable[[tuple[str, ...]], Awaitable[list[dict[str, Any]]]]:
    """Return the checks in the form that the agent's `diagnostics` stage takes (`agent.stages.services.Checks`)."""

    async def run(names: tuple[str, ...]) -> list[dict[str, Any]]:
        findings = await consult(names, config_file=config_file, wall=wall)
        return [finding.as_json() for finding in findings]

    return run
