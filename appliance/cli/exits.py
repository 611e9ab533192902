"""Exit codes of the imageport command and the errors that only the command line has; prints nothing.

The numbers are a contract (sysexits where there is one): scripts branch on them.
"""

from enum import IntEnum
from typing import Any, ClassVar, Protocol, TypeGuard


class Exit(IntEnum):
    """What the exit code of a command means."""

    OK = 0
    NO = 1
    """The answer is no: disks differ, a check found problems, the job failed."""
    USAGE = 2
    BAD_DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    BUG = 70
    CANNOT_CREATE = 73
    IO = 74
    RETRY = 75
    PROTOCOL = 76
    NO_PERMISSION = 77
    CONFIG = 78
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as a shell would report it."""
    STDOUT_CLOSED = 141
    """The reader of stdout went away: 128 + SIGPIPE."""


class NamedError(Protocol):
    """What every error of this product carries; the command line knows no package's tree."""

    code: str
    exit_code: int
    fix: str
    fields: dict[str, Any]


def is_named(err: BaseException) -> TypeGuard[NamedError]:
    """Tell whether `err` is an error of ours, which explains itself, rather than a bug."""
    return isinstance(getattr(err, "code", None), str) and isinstance(
        getattr(err, "exit_code", None), int
    )


class CliError(Exception):
    """Base of the errors that only the command line has.

    Attributes:
        code: Stable name of the cause.
        exit_code: The command's exit code.
        http_status: Never answered over REST by us; there for uniformity of the table of errors.
        fix: What the user can do, one sentence.
        fields: Facts of this case.
    """

    code: ClassVar[str] = "cli.error"
    exit_code: ClassVar[int] = Exit.BUG
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = ""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


class BadUsage(CliError):
    """The arguments contradict each other in a way that the parser cannot see."""

    code = "cli.usage"
    exit_code = Exit.USAGE
    http_status = 400
    fix = "See the command's --help."


class ExtraMissing(CliError):
    """The command needs packages of an extra that is not installed."""

    code = "cli.extra-missing"
    exit_code = Exit.UNAVAILABLE
    http_status = 501
    fix = "Install imageport with the extra that the message names."
