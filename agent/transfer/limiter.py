"""Token-bucket bandwidth limit; several stack (appliance, job). The rate may be changed while bytes flow."""

import threading
from collections.abc import Callable
from typing import Protocol

from agent.threads import Stop


class Taker(Protocol):
    """Whatever else has to agree before bytes may be sent."""

    def take(self, n: int, stop: Stop) -> None:
        """Return when `n` more bytes may be sent."""
        ...


BURST_S = 1.0
"""The bucket holds one second of the rate: short enough that a graph of the link looks flat."""
_LOOK_S = 0.25
"""The longest sleep: a changed rate is seen within it."""


class Limiter:
    """Bytes a second for whoever calls `take`; None is no limit. Thread-safe."""

    def __init__(
        self, rate: int | None, *, now: Callable[[], float], parent: Taker | None = None
    ) -> None:
        self._rate = rate
        self._now = now
        self._parent = parent
        self._tokens = float(rate or 0) * BURST_S
        self._filled_at = now()
        self._lock = threading.Lock()

    @property
    def rate(self) -> int | None:
        """Bytes a second, None without limit."""
        return self._rate

    @property
    def lowest(self) -> int | None:
        """The rate that holds with those above it, None without limit."""
        above = self._parent.lowest if isinstance(self._parent, Limiter) else None
        return min((one for one in (self._rate, above) if one is not None), default=None)

    def set_rate(self, bytes_per_s: int | None) -> None:
        """Change the limit; waiting callers see it within a quarter of a second."""
        with self._lock:
            self._fill()
            self._rate = bytes_per_s
            self._tokens = min(self._tokens, float(bytes_per_s or 0) * BURST_S)

    def take(self, n: int, stop: Stop) -> None:
        """Wait until `n` bytes may be sent; an `n` above the bucket goes into debt, so it never starves. Blocking.

        Raises:
            Cancelled: `stop` was set first.
        """
        if self._parent is not None:
            self._parent.take(n, stop)
        while wait := self._take(n):
            stop.sleep(min(_LOOK_S, wait))

    def _take(self, n: int) -> float:
        """Take `n` bytes and return 0, or return the seconds until there may be some."""
        with self._lock:
            if self._rate is None:
                return 0.0
            self._fill()
            if self._tokens <= 0:
                return -self._tokens / self._rate + 0.001
            self._tokens -= n
            return 0.0

    def _fill(self) -> None:
        now = self._now()
        if self._rate is not None:
            full = self._rate * BURST_S
            self._tokens = min(full, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
