"""Carries the doctor's checks out: all at once, each within its time, the order kept whatever they do. Judges nothing.

A check that crashes or hangs is a finding of its own; the others do not notice.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from agent.errors import AgentError
from agent.log import clean_text, redact
from appliance.doctor.base import Check, Context, Finding, Status, failed, skipped
from imaging.errors import ImagingError
from protocol.errors import ProtocolError

NAMED_ERRORS = (AgentError, ProtocolError, ImagingError)


async def examine(checks: Sequence[Check], context: Context, *, timeout_s: float) -> list[Finding]:
    """Carry checks out and return their findings, in the order of `checks`.

    Args:
        checks: In order; those that one of them needs stand before it.
        context: What they look at.
        timeout_s: For all of them together.
    """
    loop = asyncio.get_running_loop()
    visit = _Visit(context, loop.time() + timeout_s, timeout_s)
    visit.done = {check.name: asyncio.Event() for check in checks}
    async with asyncio.TaskGroup() as group:
        for check in checks:
            group.create_task(visit.carry_out(check))
    return [finding for check in checks for finding in context.found[check.name]]


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst judgement; PASS for none."""
    order = list(Status)
    return max((finding.status for finding in findings), key=order.index, default=Status.PASS)


def summary(findings: Sequence[Finding]) -> Mapping[str, int]:
    """Count the findings by judgement."""
    return {status.value: sum(f.status is status for f in findings) for status in Status}


@dataclass(slots=True)
class _Visit:
    context: Context
    deadline: float
    timeout_s: float
    done: dict[str, asyncio.Event] = field(default_factory=dict)

    async def carry_out(self, check: Check) -> None:
        """Wait for what the check builds on, run it, keep its findings."""
        found = self.context.found[check.name] = []
        try:
            for name in (*check.needs, *check.after):
                if name in self.done:
                    await self.done[name].wait()
            reason = self._why_not(check)
            if reason:
                found.append(skipped(check.name, check.title, reason))
            else:
                await self._run(check, found)
        finally:
            self.done[check.name].set()

    def _why_not(self, check: Check) -> str:
        for name in check.needs:
            if worst(self.context.found.get(name, ())) is Status.FAIL:
                return f"not looked at: `{name}` failed"
        if asyncio.get_running_loop().time() >= self.deadline:
            return f"not looked at: the time limit of {self.timeout_s:g} s was used up"
        return ""

    async def _run(self, check: Check, found: list[Finding]) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout_at(min(loop.time() + check.limit_s, self.deadline)),
                aclosing(check.run(self.context)) as findings,  # type: ignore[type-var]  # a generator
            ):
                async for finding in findings:
                    now = time.monotonic()
                    found.append(_clean(finding if finding.seconds else finding.took(now - began)))
                    began = now
        except Exception as err:  # noqa: BLE001 - the doctor outlives every check
            found.append(_clean(_ended(check, err).took(time.monotonic() - began)))


def _ended(check: Check, err: Exception) -> Finding:
    """Return what it means that a check ended with an error."""
    while isinstance(err, ExceptionGroup):  # of a check whose parts run together
        err = err.exceptions[0]
    if isinstance(err, TimeoutError):
        return failed(
            check.name,
            check.title,
            "no answer within the time limit",
            fix="Something on the way drops packets or hangs: look there, or give it more --timeout.",
        )
    if isinstance(err, PermissionError):
        where = f" into {err.filename}" if err.filename else ""
        return skipped(check.name, check.title, f"may not look{where}: run the doctor as root")
    if isinstance(err, NAMED_ERRORS):
        return failed(check.name, check.title, str(err), fix=err.fix, code=err.code)
    return failed(
        check.name,
        check.title,
        f"the check itself crashed: {type(err).__name__}: {err}",
        fix="Please report this: it is a bug in imageport. `imageport bundle` collects what is needed.",
        crashed=True,
    )


def _clean(finding: Finding) -> Finding:
    """Take out whatever looks like a secret; a finding travels further than a log."""
    evidence: Mapping[str, Any] = redact(None, "", dict(finding.evidence))
    return replace(
        finding,
        detail=clean_text(finding.detail),
        fix=clean_text(finding.fix),
        evidence=evidence,
    )
