"""SMB recovery: when and how often a request is repeated after the server, the session or the file went away.
Decides on error classes only; clock, randomness and pauses are arguments.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.errors import AgentError
from agent.shares.errors import (
    InUse,
    ShareBusy,
    ShareDisconnected,
    ShareTimeout,
    ShareUnreachable,
)
from agent.shares.smb.policy import SmbPolicy

LOST = (ShareDisconnected, ShareTimeout, ShareUnreachable)
"""The link is of no use any more: reconnect, reopen, repeat."""

BUSY = (ShareBusy, InUse)
"""The link is good, the server or the file is not free."""

_LONGEST_EXPONENT = 30


@dataclass(slots=True)
class Timing:
    """Where time and chance come from.

    Attributes:
        clock: Monotonic seconds.
        rng: Source of jitter.
    """

    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)


class Recovery:
    """The patience for one call.

    Full jitter (a random pause between nothing and a doubling bound), so that many jobs do not return at once.
    """

    def __init__(self, policy: SmbPolicy, timing: Timing) -> None:
        self._policy = policy
        self._timing = timing
        self._attempt = 0
        self._started: float | None = None

    def pause_after(self, err: AgentError) -> float:
        """Return how long to wait before the next try.

        Raises:
            AgentError: `err` itself, if it is not worth a try or the time for it is over.
        """
        if isinstance(err, LOST):
            patience = self._policy.reconnect_for
        elif isinstance(err, BUSY):
            patience = self._policy.busy_for
        else:
            raise err
        now = self._timing.clock()
        if self._started is None:
            self._started = now
        left = self._started + patience - now
        if left <= 0:
            raise err
        bound = self._policy.backoff_base * 2.0 ** min(self._attempt, _LONGEST_EXPONENT)
        self._attempt += 1
        return min(left, self._timing.rng.uniform(0, min(bound, self._policy.backoff_cap)))
