"""When to dial again, and how often to answer nonsense. Pure: randomness and clocks are arguments."""

from collections.abc import Callable
from dataclasses import dataclass, field

GRACE_S = 10.0
"""A connection counts as good only after this long: one that is dropped at once must not make us hammer the relay."""
NACK_BURST = 10
NACK_EVERY_S = 1.0


@dataclass(slots=True)
class Backoff:
    """Full jitter: each wait is a random part of base * 2**n, at most `cap` seconds."""

    base: float
    cap: float
    random: Callable[[], float]
    _failures: int = 0

    def next(self) -> float:
        """Return the next wait in seconds."""
        step = min(self.cap, self.base * float(2 ** min(self._failures, 30)))
        self._failures += 1
        return self.random() * step

    def ended(self, lasted_s: float) -> None:
        """A verified connection ended after so long; only a good one resets the waits."""
        if lasted_s >= GRACE_S:
            self._failures = 0


@dataclass(slots=True)
class NackLimit:
    """A token bucket per code: hostile frames cost the relay's answers, not ours."""

    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allow(self, code: str, *, now: float) -> bool:
        """Whether one more nack of this code may be sent; codes are a closed set, so the dict stays small."""
        tokens, at = self._buckets.get(code, (float(NACK_BURST), now))
        tokens = min(float(NACK_BURST), tokens + (now - at) / NACK_EVERY_S)
        allowed = tokens >= 1
        self._buckets[code] = (tokens - 1 if allowed else tokens, now)
        return allowed


def worth_logging(count: int) -> bool:
    """Sample: the 1st, 2nd, 4th, 8th, ... occurrence of a code."""
    return count > 0 and count & (count - 1) == 0
