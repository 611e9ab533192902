"""Pacing: which bandwidth limit holds now, for the appliance and for each running job, by the time of day.

A `Limits` is a rate and windows that override it ("mon-fri 08:00-18:00: 5 MiB/s"); `rate_at` decides, pure. `Pacing`
keeps the limiters of the appliance and of the running jobs at what theirs say; a `set-limits` changes them while bytes
flow. Times are the appliance's local time, by signed time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from agent.transfer.limiter import Limiter
from protocol.codec import decode
from protocol.messages import MAX_COMMAND
from protocol.ops import DAYS, LimitWindow, SetLimitsArgs

EVERY_S = 5.0
"""How often the time of day is looked at."""
_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class Limits:
    """What was ordered or configured.

    Attributes:
        bandwidth: Bytes a second outside of the windows; None: no limit.
        windows: The first that holds wins.
    """

    bandwidth: int | None = None
    windows: Sequence[LimitWindow] = ()


def limits_in(args: bytes) -> Limits:
    """Return what a `set-limits` order that is kept in the journal says."""
    ordered = decode(args, SetLimitsArgs, limit=MAX_COMMAND)
    return Limits(ordered.bandwidth, ordered.windows)


def rate_at(limits: Limits, moment: datetime) -> int | None:
    """Return the bytes a second that hold at a local time, None without limit."""
    for window in limits.windows:
        if _holds(window, moment):
            return window.bandwidth
    return limits.bandwidth


def _holds(window: LimitWindow, moment: datetime) -> bool:
    """Whether a window is open; one that ends before it begins goes over midnight and belongs to the day it began."""
    minute = moment.hour * 60 + moment.minute
    begin, end = _minutes(window.begin), _minutes(window.end)
    today, yesterday = moment.weekday(), (moment.weekday() - 1) % 7
    days = window.days or DAYS
    if begin < end:
        return DAYS[today] in days and begin <= minute < end
    late = DAYS[today] in days and minute >= begin
    early = DAYS[yesterday] in days and minute < end
    return late or early


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return (int(hours) * 60 + int(minutes)) % (_DAY_MIN + 1)


@dataclass(slots=True)
class Pacing:
    """The limiters of one agent. On the loop; the limiters themselves are taken from by threads.

    Attributes:
        limits: Of the appliance.
        moment: The local time now.
        now: Monotonic seconds.
    """

    limits: Limits
    moment: Callable[[], datetime]
    now: Callable[[], float]
    limiter: Limiter = field(init=False)
    _jobs: dict[bytes, tuple[Limits, Limiter]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limiter = Limiter(rate_at(self.limits, self.moment()), now=self.now)

    @contextmanager
    def job(self, job: bytes, limits: Limits) -> Iterator[Limiter]:
        """Keep a running job's limiter, below the appliance's, while the block runs."""
        limiter = Limiter(rate_at(limits, self.moment()), now=self.now, parent=self.limiter)
        self._jobs[job] = (limits, limiter)
        try:
            yield limiter
        finally:
            self._jobs.pop(job, None)

    def set(self, job: bytes | None, limits: Limits) -> None:
        """Change the appliance's limits, or a running job's; nothing if it does not run."""
        if job is None:
            self.limits = limits
        elif job in self._jobs:
            self._jobs[job] = (limits, self._jobs[job][1])
        self.apply()

    def apply(self) -> None:
        """Set every limiter to what holds now."""
        moment = self.moment()
        for limits, limiter in ((self.limits, self.limiter), *self._jobs.values()):
            wanted = rate_at(limits, moment)
            if wanted != limiter.rate:
                limiter.set_rate(wanted)
