"""Token-bucket bandwidth limit; several stack (appliance, job). The rate may be changed while bytes flow."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Taker(Protocol):
    """Whatever else has to agree before bytes may be sent."""

    async def take(self, n: int) -> None:
        """Return when `n` more bytes may be sent."""
        ...


BURST_S = 1.0
"""The bucket holds one second of the rate: short enough that a graph of the link looks flat."""


class Limiter:
    """Bytes a second for whoever calls `take`; None is no limit."""

    def __init__(
        self, rate: int | None, *, now: Callable[[], float], parent: Taker | None = None
    ) -> None:
        self._rate = rate
        self._now = now
        self._parent = parent
        self._tokens = float(rate or 0) * BURST_S
        self._filled_at = now()

    @property
    def rate(self) -> int | None:
        """Bytes a second, None without limit."""
        return self._rate

    def set_rate(self, bytes_per_s: int | None) -> None:
        """Change the limit; waiting callers see it within a quarter of a second."""
        self._fill()
        self._rate = bytes_per_s
        self._tokens = min(self._tokens, float(bytes_per_s or 0) * BURST_S)

    async def take(self, n: int) -> None:
        """Wait until `n` bytes may be sent; an `n` above the bucket goes into debt, so it never starves."""
        if self._parent is not None:
            await self._parent.take(n)
        while self._rate is not None:
            self._fill()
            if self._tokens > 0:
                self._tokens -= n
                return
            await asyncio.sleep(min(0.25, -self._tokens / self._rate + 0.001))

    def _fill(self) -> None:
        now = self._now()
        if self._rate is not None:
            full = self._rate * BURST_S
            self._tokens = min(full, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
