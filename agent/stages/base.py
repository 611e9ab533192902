"""Stage: the seam between the runner and what a job does. Protocol and values only.

The runner owns states, slots, deadline, cancel and the result; a stage does the work and says what came out of it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from agent.config import AgentConfig
from agent.journal.base import JobStore
from agent.secrets import SecretReader
from agent.transfer.limiter import Limiter
from protocol.messages import Output
from protocol.ops import OpArgs


class ReportProgress(Protocol):
    """How a stage says how far it is. Cheap, from the loop, as often as it likes: the runner coalesces."""

    def __call__(
        self, step: str, done: int, total: int, *, retries: int = 0, slow: str | None = None
    ) -> None:
        """Report `done` of `total` bytes of data in `step`; rates and ETA are computed by the runner.

        Args:
            step: Name of the step ("transfer", "verify"): `[a-z0-9.-]`.
            done: Never falls inside one step and attempt.
            total: Bytes of data that this step moves.
            retries: Retried calls so far.
            slow: What holds it back now (source, cpu, limit, network, cloud or target), None if nothing does.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Everything that one attempt of one job may use.

    Attributes:
        args: The op's typed arguments; a stage narrows them by isinstance.
        tenant / appliance: Who we are.
        command_id: The command's id, hex.
        origin: Id of the first command of this line of retries, hex: names and tags use it.
        attempt: 1 at the start, one more with every resume.
        config: The agent's configuration.
        tag_key: HMAC key of owner tags; never leaves the process.
        journal: This job's receipts, checkpoint and intents; pass it on as `IntentLog` and as `Receipts`.
        secret: Opens the command's sealed fields on demand ("source.credential"); {} if there is none.
        progress: Reports how far the job is.
        warn: Adds (code, message) to the report; the job goes on.
        limiter: The job's own bandwidth limit, below the agent's; `set-limits` and the time of day change it meanwhile.
        stop: Set when the stage must end; worker threads look at it for every chunk.
        now_ms: Best guess of the time outside, ms UTC: signed time and the time since, else this machine's clock.
        clock: Monotonic seconds.
    """

    args: OpArgs
    tenant: str
    appliance: str
    command_id: str
    origin: str
    attempt: int
    config: AgentConfig
    tag_key: bytes = field(repr=False)
    journal: JobStore
    secret: SecretReader = field(repr=False)
    progress: ReportProgress
    warn: Callable[[str, str], None]
    limiter: Limiter
    stop: threading.Event
    now_ms: Callable[[], int]
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What a stage made.

    Attributes:
        outputs: Typed facts for successors and for the signed result.
        root: Content digest `sha256:<hex>` of the source, if the stage saw all of it.
        report: Further facts for people (JSON-able, small), merged into the result's report.
    """

    outputs: tuple[Output, ...] = ()
    root: str | None = None
    report: dict[str, Any] = field(default_factory=dict)


class Stage(Protocol):
    """One op. Stateless: everything that must survive is in the journal; one instance may serve many jobs.

    Ends: `run` returns (succeeded), or raises AgentError, ImagingError or ProtocolError (failed with its code). On a
    cancel, on the job's deadline and on the agent's own stop, `job.stop` is set and the task is cancelled: `run` closes
    what it opened and lets CancelledError go up; it deletes nothing then, because a stopped agent resumes.
    """

    op: ClassVar[str]

    async def run(self, job: StageContext) -> StageOutcome:
        """Do the work, from wherever the journal says that an earlier attempt got."""
        ...

    async def clean_up(self, job: StageContext) -> list[str]:
        """After a cancel: delete what this line of jobs created, by its intents; return what is left behind.

        Called once `run` has ended, or in a later process for a job that was being cancelled when the agent died;
        may be called twice. `job.stop` is clear again. Bounded by `limits.clean_up_s`.
        """
        ...
