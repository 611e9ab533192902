"""Token buckets: how often one caller may ask. Pure state, the clock is an argument; its memory is bounded."""

from collections import OrderedDict
from dataclasses import dataclass, field

MAX_CALLERS = 10_000
"""Buckets kept; the one used longest ago is forgotten first, which can only be generous."""


@dataclass(slots=True)
class Buckets:
    """One bucket a caller: `burst` tokens at most, `rate` new ones a second."""

    rate: float
    burst: int
    _state: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, caller: str, *, now: float) -> float:
        """Take one token; return 0, or the seconds to wait until there is one."""
        tokens, at = self._state.pop(caller, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - at) * self.rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
        self._state[caller] = (tokens if wait else tokens - 1, now)
        while len(self._state) > MAX_CALLERS:
            self._state.popitem(last=False)
        return wait
