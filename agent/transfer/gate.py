"""Gate: how many requests may be in flight, adapted to the service (additive increase, multiplicative decrease).

Grows by one slot a full window of successes, shrinks to 0.65 on throttling, at most once per `DEAD_BAND_S`: requests
that were in flight when the service said no are one complaint, not many (azcopy's pacer cuts by the same factor).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

SHRINK = 0.65
DEAD_BAND_S = 1.0


class Gate:
    """An adaptive semaphore for one event loop; waiters are served in order."""

    def __init__(self, *, start: int, most: int, now: Callable[[], float]) -> None:
        self._limit = float(min(start, most))
        self._most = most
        self._busy = 0
        self._now = now
        self._shrunk_at = float("-inf")
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots."""
        while self._busy >= self.limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._wake()

    def succeeded(self) -> None:
        """Count a success: one full window of them adds a slot."""
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)
        self._wake()

    def throttled(self) -> None:
        """Shrink after the service complained."""
        now = self._now()
        if now - self._shrunk_at >= DEAD_BAND_S:
            self._shrunk_at = now
            self._limit = max(1.0, self._limit * SHRINK)

    def _wake(self) -> None:
        # Woken waiters look again themselves, so waking one too many (or a cancelled one) does no harm.
        free = self.limit - self._busy
        while free > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
