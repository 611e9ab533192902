"""AgentError tree: what can go wrong while a job runs; the class decides what happens next, never the text.

AgentError                   agent.error
├── Retryable                tried again by agent.transfer.retry (throttling, dropped connections)
├── NeedsOperator            state is kept, the administrator acts (full share, expired credential)
├── Permanent                the job fails (damaged image, missing share, forbidden)
└── Cancelled                job.cancelled
Subclasses live beside the code that raises them or here; each has its own `code`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class AgentError(Exception):
    """Base of all errors of the agent.

    Attributes:
        code: Stable name of the cause ("share.logon-failed"); scripts match on it.
        exit_code: sysexits number for the command line.
        http_status: Status if the error is answered over REST.
        retryable: Whether the same call may succeed later without anybody acting.
        fix: What the administrator can do, one sentence.
        fields: Facts of this case (where, expected, found); no secret ever.
    """

    code: ClassVar[str] = "agent.error"
    exit_code: ClassVar[int] = 70
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = ""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class Retryable(AgentError):
    """May succeed when tried again: the retry policy decides how often.

    `retry_after` (seconds) is the least wait that the other side asked for, None if it did not.
    """

    code = "agent.retryable"
    exit_code = 75
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after = retry_after


class NeedsOperator(AgentError):
    """Somebody has to act; what was done so far is kept."""

    code = "agent.needs-operator"
    exit_code = 77
    http_status = 409


class PackageMissing(NeedsOperator):
    """The job needs a Python package that this appliance lacks."""

    code = "agent.package-missing"
    fix = "Install imageport on the appliance with the extra of the job's target (imageport[azure]); order it again."


class Permanent(AgentError):
    """Trying again cannot help."""

    code = "agent.permanent"
    exit_code = 65
    http_status = 422


class Cancelled(AgentError):
    """The job was cancelled on purpose."""

    code = "job.cancelled"
    exit_code = 1
    http_status = 409
    fix = "Nothing is wrong: order the job again, or retry it, when it is wanted."


class TooSlow(Retryable):
    """A request took longer than the service, or we, wait: the next ones carry less."""

    code = "target.too-slow"
    fix = "Nothing to do: requests become smaller by themselves. If it lasts, look at the link's upload bandwidth."


class Throttled(Retryable):
    """The service asks us to slow down; concurrency is cut before the next try."""

    code = "target.throttled"
    fix = "Nothing to do: the transfer slows down by itself. If it lasts, lower the number of parallel jobs."


def most_telling(errors: Sequence[BaseException]) -> BaseException:
    """Return the error to report of several: the first real one, a Cancelled only if there is no other."""
    return next((error for error in errors if not isinstance(error, Cancelled)), errors[0])


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to report out of a group."""
    return most_telling(_flatten(failures))


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
