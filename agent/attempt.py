"""One attempt of one job: runs the stage under its deadline and turns whatever happens into an ending. Writes no state.

The runner owns states, slots and the journal's transactions; here is the only place that catches a stage's errors.
"""

import asyncio
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from agent.errors import AgentError, PackageMissing
from agent.journal.results import Ending
from agent.log import clean_text
from agent.stages.base import Stage, StageContext, StageOutcome
from imaging.errors import ImagingError
from protocol.errors import ProtocolError
from protocol.jobs import JobEvent

BUG = "agent.bug"
DEADLINE = "job.deadline"
CANCELLED = "job.cancelled"
MAX_MESSAGE = 1000
MAX_WARNINGS = 100


@dataclass(slots=True)
class Attempt:
    """The state of one attempt. `stop` may be called at any time, before the stage began too.

    Attributes:
        flag: The stage's stop flag.
        warnings: What the stage warned of.
    """

    flag: threading.Event = field(default_factory=threading.Event)
    warnings: list[dict[str, str]] = field(default_factory=list)
    stopped: bool = False
    _work: "asyncio.Task[StageOutcome] | None" = None

    def stop(self) -> None:
        """Make the stage end: worker threads see the flag, the task is cancelled."""
        if self.stopped:  # a second cancel must not tear down what the first one closes
            return
        self.stopped = True
        self.flag.set()
        if self._work is not None:
            self._work.cancel()

    def warn(self, code: str, message: str) -> None:
        """Keep a warning for the report."""
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append({"code": code, "message": clean_text(message)[:MAX_MESSAGE]})

    async def run(
        self, stage: Stage, job: StageContext, *, limit_s: float | None
    ) -> tuple[JobEvent, Ending]:
        """Run the stage and return how the job ended: SUCCEED, FAIL, or STOPPED after `stop`."""
        try:
            outcome = await self._run(stage, job, limit_s)
        except AgentStopped:
            return JobEvent.STOPPED, Ending(code=CANCELLED)
        except (AgentError, ImagingError, ProtocolError, DeadlineOver) as err:
            if self.stopped:  # what it ran into while it was being stopped is no news
                self.warn(err.code, str(err))
                return JobEvent.STOPPED, Ending(code=CANCELLED)
            return JobEvent.FAIL, failure(err)
        except ModuleNotFoundError as err:
            return JobEvent.FAIL, failure(PackageMissing(str(err)))
        except Exception as err:  # noqa: BLE001 - a stage's defect ends its job, never the agent
            structlog.get_logger("runner").error("stage crashed", exc_info=err)
            return JobEvent.FAIL, bug(err)
        return JobEvent.SUCCEED, Ending(
            outputs=outcome.outputs, root=outcome.root, report=dict(outcome.report)
        )

    async def clean_up(self, stage: Stage, job: StageContext, *, limit_s: float) -> list[str]:
        """Let the stage delete what the line created; return what is left, in words."""
        fresh = replace(job, stop=threading.Event())
        try:
            async with asyncio.timeout(limit_s):
                return await stage.clean_up(fresh)
        except TimeoutError:
            reason = f"clean-up did not end within {limit_s:.0f} s"
        except (AgentError, ImagingError, ProtocolError) as err:
            reason = clean_text(str(err))
        except Exception as err:  # noqa: BLE001 - what is left must be named, whatever went wrong
            structlog.get_logger("runner").error("clean-up crashed", exc_info=err)
            reason = f"clean-up crashed ({type(err).__name__})"
        return [f"{name}: {reason}" for name in created_objects(job)]

    async def _run(self, stage: Stage, job: StageContext, limit_s: float | None) -> StageOutcome:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit, asyncio.TaskGroup() as group:
                self._work = work = group.create_task(stage.run(job))
                if self.stopped:
                    work.cancel()
        except TimeoutError as err:
            if limit.expired():
                raise DeadlineOver(limit_s or 0.0) from err
            raise
        except ExceptionGroup as group_err:
            cause = first_cause(group_err)
            raise cause from group_err
        finally:
            self.flag.set()
        if work.cancelled():
            raise AgentStopped
        return work.result()


class AgentStopped(Exception):
    """The stage was stopped and ended."""


class DeadlineOver(AgentError):
    """The job took longer than its command allows."""

    code = DEADLINE
    exit_code = 75
    http_status = 504
    fix = "Order it again with --retry (API: retry_of) and a longer timeout; it goes on where this one stopped."

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the job's time was over after {limit_s:.0f} s in this attempt")


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception that is no group: the TaskGroup's wrapping says nothing."""
    error = group.exceptions[0]
    return first_cause(error) if isinstance(error, BaseExceptionGroup) else error


def created_objects(job: StageContext) -> list[str]:
    """Name every object that this line of jobs made and that is still there, as far as the journal knows."""
    return [f"{i.kind} {i.name} {i.object_id}".strip() for i in job.journal.intents()]


def failure(err: AgentError | ImagingError | ProtocolError) -> Ending:
    """Return the ending of a job that met a named error."""
    facts = {k: v for k, v in err.fields.items() if isinstance(v, str | int | float | bool)}
    report: dict[str, Any] = {
        "code": err.code,
        "message": clean_text(str(err))[:MAX_MESSAGE],
        "fix": err.fix,
        "facts": {key: clean_text(v) if isinstance(v, str) else v for key, v in facts.items()},
    }
    return Ending(code=err.code, report=report)


def bug(err: BaseException) -> Ending:
    """Return the ending of a job that met a defect of ours."""
    message = f"internal error: {type(err).__name__}"
    return Ending(code=BUG, report={"code": BUG, "message": message, "fix": "Report this."})
