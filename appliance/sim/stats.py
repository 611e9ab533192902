"""Counts of what a simulator was asked and what it stored, so that tests assert work instead of seconds."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last `reset`.

    Attributes:
        requests: Requests by operation name, refused ones included.
        refusals: Answers of 400 and above by "operation code".
        faults: Injected faults by action.
        bytes_received: Body bytes that came in with page writes, stored or not.
        bytes_stored: Page bytes acknowledged as stored.
        bytes_read: Page bytes sent out.
        inflight / inflight_most: Requests being answered now, and the most at one time.
    """

    requests: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bytes_received: int = 0
    bytes_stored: int = 0
    bytes_read: int = 0
    inflight: int = 0
    inflight_most: int = 0

    def begin(self, operation: str) -> None:
        """Count a request that starts."""
        self.requests[operation] += 1
        self.inflight += 1
        self.inflight_most = max(self.inflight_most, self.inflight)

    def reset(self) -> None:
        """Set every counter to zero; requests in flight stay counted as in flight."""
        self.requests.clear()
        self.refusals.clear()
        self.faults.clear()
        self.bytes_received = self.bytes_stored = self.bytes_read = 0
        self.inflight_most = self.inflight

    def as_json(self) -> dict[str, Any]:
        """Return the counters as `GET /sim/stats` shows them."""
        return {
            "schema": "sim-stats/1",
            "requests": dict(self.requests),
            "refusals": dict(self.refusals),
            "faults": dict(self.faults),
            "bytes_received": self.bytes_received,
            "bytes_stored": self.bytes_stored,
            "bytes_read": self.bytes_read,
            "inflight": self.inflight,
            "inflight_most": self.inflight_most,
        }
