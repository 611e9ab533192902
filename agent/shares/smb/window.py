"""SMB window: how many READs or WRITEs one connection has in flight. The depth adapts itself to the way to the server.

More in flight hides the round trip; more than that only queues at the server. So the depth grows while answers come
about as fast as when the way was empty, and is halved when the server says that it has no resources left (additive
increase, multiplicative decrease; the measure of queueing is that of TCP Vegas, Brakmo and Peterson 1995).
"""

import threading
import time
from collections.abc import Callable

from agent.shares.smb import status
from agent.shares.smb.ticket import Ticket

EXHAUSTED = frozenset([status.INSUFFICIENT_RESOURCES, status.REQUEST_NOT_ACCEPTED])

MOST_QUEUED = 4.0
"""Of READs, which cost us no memory; a queue keeps a server that reads ahead busy."""


class Depth:
    """The decision alone: latencies in, depth out. Pure.

    Attributes:
        value: Requests that may be in flight.
    """

    def __init__(self, low: int, high: int, *, most_queued: float = MOST_QUEUED) -> None:
        """Begin with `low`.

        Args:
            low: Never less, unless the server has no resources.
            high: Never more.
            most_queued: Requests of ours that may wait somewhere before the depth stops growing.
        """
        self.value = low
        self._most_queued = most_queued
        self._low, self._high = low, high
        self._best = float("inf")
        self._answers = 0

    def answered(self, seconds: float) -> None:
        """Take the time that one request took while the window was full."""
        self._best = min(self._best, seconds)
        self._answers += 1
        if self._answers < self.value:
            return
        self._answers = 0
        queued = self.value * (1 - self._best / seconds) if seconds > 0 else 0.0
        if queued < self._most_queued:
            self.value = min(self.value + 1, self._high)
        elif queued > 2 * self._most_queued:
            self.value = max(self.value - 1, self._low)

    def exhausted(self) -> None:
        """The server has no resources for so many."""
        self.value = max(self.value // 2, 1)
        self._low = min(self._low, self.value)
        self._answers = 0


class Slots:
    """Permits of one connection, over all its threads.

    Attributes:
        depth: Decides how many there are.
    """

    def __init__(
        self, depth: Depth, *, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with nothing in flight.

        Args:
            depth: Decides how many there are.
            timeout: Seconds that one is waited for.
            clock: Monotonic seconds.
        """
        self.depth = depth
        self._timeout = timeout
        self._clock = clock
        self._free = threading.Condition()
        self._in_flight = 0

    @property
    def is_busy(self) -> bool:
        """Whether there is something in flight."""
        return self._in_flight > 0

    def take(self, *, wait: bool) -> bool:
        """Get a permit; whoever holds one already must not wait for another.

        Raises:
            TimeoutError: None became free in time.
        """
        with self._free:
            if self._in_flight >= self.depth.value:
                if not wait:
                    return False
                if not self._free.wait_for(self._has_room, self._timeout):
                    raise TimeoutError("the requests before this one do not end")
            self._in_flight += 1
            return True

    def measure(self, ticket: Ticket) -> None:
        """Start the clock of a request that has a permit; only requests of one size can be compared."""
        if self._in_flight >= self.depth.value:
            ticket.since = self._clock()

    def give_back(self, ticket: Ticket) -> None:
        """End a request, whatever became of it."""
        with self._free:
            self._in_flight -= 1
            if ticket.head is not None and ticket.head.status in EXHAUSTED:
                self.depth.exhausted()
            elif ticket.head is not None and ticket.since:
                self.depth.answered(self._clock() - ticket.since)
            self._free.notify()

    def _has_room(self) -> bool:
        return self._in_flight < self.depth.value
