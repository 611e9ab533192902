"""Token-bucket bandwidth limit; several stack (appliance, job). The rate may be changed while bytes flow.

Who shares a bucket gets the same share of it, however many workers ask: of those that wait, the one that got least goes
first (start-time fair queuing, Goyal et al. 1996).
"""

import threading
from collections import Counter
from collections.abc import Callable
from weakref import WeakKeyDictionary

from agent.threads import Stop

BURST_S = 1.0
"""The bucket holds one second of the rate: short enough that a graph of the link looks flat."""
_LOOK_S = 0.25
"""The longest sleep: a changed rate is seen within it."""
_TURN_S = 0.02
"""How often somebody whose turn it is not looks again."""


class Limiter:
    """Bytes a second for whoever calls `take`; None is no limit. Thread-safe."""

    def __init__(
        self, rate: int | None, *, now: Callable[[], float], parent: "Limiter | None" = None
    ) -> None:
        self._rate = rate
        self._now = now
        self._parent = parent
        self._tokens = float(rate or 0) * BURST_S
        self._filled_at = now()
        self._lock = threading.Lock()
        self._waiting: Counter[Limiter] = Counter()
        self._served: WeakKeyDictionary[Limiter, float] = WeakKeyDictionary()
        """Bytes that each child got; one that comes (back) begins where the last one served stands."""
        self._now_served = 0.0

    @property
    def rate(self) -> int | None:
        """Bytes a second, None without limit."""
        return self._rate

    @property
    def lowest(self) -> int | None:
        """The rate that holds with those above it, None without limit."""
        above = self._parent.lowest if self._parent is not None else None
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
            self._parent.share(n, stop, self)
        self.share(n, stop, self)

    def share(self, n: int, stop: Stop, child: "Limiter") -> None:
        """Take from this bucket for one of those that share it. Blocking; as `take`."""
        with self._lock:
            if not self._waiting[child]:
                self._served[child] = max(self._served.get(child, 0.0), self._now_served)
            self._waiting[child] += 1
        try:
            while wait := self._take(n, child):
                stop.sleep(min(_LOOK_S, wait))
        finally:
            with self._lock:
                self._waiting[child] -= 1
                if not self._waiting[child]:
                    del self._waiting[child]

    def _take(self, n: int, child: "Limiter") -> float:
        """Take `n` bytes and return 0, or return the seconds until there may be some."""
        with self._lock:
            if self._rate is None:
                return 0.0
            self._fill()
            if self._tokens <= 0:
                return -self._tokens / self._rate + 0.001
            if self._served[child] > min(self._served[one] for one in self._waiting):
                return _TURN_S
            self._tokens -= n
            self._now_served = self._served[child]
            self._served[child] += n
            return 0.0

    def _fill(self) -> None:
        now = self._now()
        if self._rate is not None:
            full = self._rate * BURST_S
            self._tokens = min(full, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
