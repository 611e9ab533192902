"""Gate: how many requests may be in flight, adapted to the service (additive increase, multiplicative decrease).

Grows by one slot a full window of successes, shrinks to 0.65 on throttling, at most once per `DEAD_BAND_S`: requests
that were in flight when the service said no are one complaint, not many (azcopy's pacer cuts by the same factor).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.threads import Stop

SHRINK = 0.65
DEAD_BAND_S = 1.0


class Gate:
    """An adaptive semaphore for worker threads."""

    def __init__(self, *, start: int, most: int, now: Callable[[], float]) -> None:
        self._limit = float(min(start, most))
        self._most = most
        self._busy = 0
        self._now = now
        self._shrunk_at = float("-inf")
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return max(1, int(self._limit))

    @contextmanager
    def slot(self, stop: Stop) -> Iterator[None]:
        """Hold one of the slots; raises Cancelled if `stop` is set while it waits for one."""
        with self._changed:
            if self._busy >= self.limit:
                self._wait(stop)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()

    def succeeded(self) -> None:
        """Count a success: one full window of them adds a slot."""
        with self._changed:
            before = self.limit
            self._limit = min(float(self._most), self._limit + 1.0 / self._limit)
            self._changed.notify(self.limit - before)

    def throttled(self) -> None:
        """Shrink after the service complained."""
        with self._changed:
            now = self._now()
            if now - self._shrunk_at >= DEAD_BAND_S:
                self._shrunk_at = now
                self._limit = max(1.0, self._limit * SHRINK)

    def _wait(self, stop: Stop) -> None:
        with stop.waking(self._wake_all):
            while self._busy >= self.limit:
                stop.check()
                self._changed.wait()

    def _wake_all(self) -> None:
        with self._changed:
            self._changed.notify_all()
