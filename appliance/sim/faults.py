"""FaultPlan: which requests an administrator or a test wants to go wrong, and how; decides, does not act.

A plan is TOML (`--faults`) or the same keys as JSON (`POST /sim/faults`):

    seed = 7                        # of the dice for `probability`; same seed, same requests: same faults
    [throttle]
    requests_per_second = 500       # above: the service's "busy" answer
    mib_per_second = 60
    [[fault]]
    op = "disk.put-page"            # shell pattern over operation names; all by default
    method = "PUT"
    path = "^/md-"                  # regular expression, searched in the path
    nth = [3, 5]                    # of the requests that match so far, counted from 1
    every = 10
    probability = 0.05
    limit = 3                       # at most so many times
    action = "status"
    status = 503
    code = "ServerBusy"
    retry_after = 1
"""

import random
import re
import tomllib
from collections import deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

Action = Literal[
    "status",  # answer `status` with `code` and `retry_after`; the body is read first, nothing is done
    "drop-before-body",  # cut the connection when the header has come
    "drop-after-body",  # cut it when the body has come; nothing is done
    "drop-after-write",  # do what was asked, then cut instead of answering
    "delay",  # wait `seconds` before doing anything
    "late",  # do it, answer `seconds` later
    "truncate",  # do it, send half of the answer's body, cut
    "trickle",  # do it, send the answer's body in pieces, `seconds` apart
    "corrupt",  # do it, flip one bit of the answer's body
    "wrong-etag",  # do it, answer with another ETag
    "lose-write",  # acknowledge a write of disk bytes and store nothing of it
    "flip-stored",  # store a write of disk bytes, then flip one bit of it
    "expire-sas",  # Azure: every SAS known so far is expired from here on
    "expire-credentials",  # AWS, Google Cloud: every temporary credential and token is expired from here on
]
MARKS: tuple[Action, ...] = ("lose-write", "flip-stored")


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One line of a plan: which requests (all given conditions must hold) and what happens to them."""

    action: Action
    op: str = "*"
    method: str = ""
    path: str = ""
    nth: list[int] = []
    every: int = 0
    probability: float = 1.0
    limit: int = 0
    status: int = 503
    code: str = "ServerBusy"
    retry_after: int | None = None
    seconds: float = 0.0


class Throttle(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Most work that the service takes in any one second; 0 is no limit."""

    requests_per_second: float = 0
    mib_per_second: float = 0
    op: str = "*.put-*"
    retry_after: int | None = None
    body_seconds: float = 0
    """A body that takes longer to arrive is given up with the service's time-out."""


class FaultPlan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A whole plan as it is written down."""

    seed: int = 0
    throttle: Throttle = msgspec.field(default_factory=Throttle)
    fault: list[Fault] = []

    @classmethod
    def from_toml(cls, text: str) -> "FaultPlan":
        """Read a plan.

        Raises:
            ValueError: Not TOML, an unknown key, or a value of the wrong type (the message says where).
        """
        return cls.from_values(tomllib.loads(text))

    @classmethod
    def from_values(cls, values: object) -> "FaultPlan":
        """Check parsed TOML or JSON; raises ValueError as `from_toml`."""
        plan = msgspec.convert(values, cls)
        for fault in plan.fault:
            try:
                re.compile(fault.path)
            except re.error as err:
                raise ValueError(
                    f"fault path {fault.path!r} is no regular expression: {err}"
                ) from err
        return plan


class FaultEngine:
    """A plan at work: counts the requests and names the faults that each of them gets."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self._dice = random.Random(plan.seed)  # noqa: S311 (repeatable faults, no secret)
        self._seen = [0] * len(plan.fault)
        self._done = [0] * len(plan.fault)
        self._recent: deque[tuple[float, int]] = deque()
        self._recent_bytes = 0

    def faults(self, *, op: str, method: str, path: str) -> Iterator[Fault]:
        """Yield the faults of the next request, in the plan's order."""
        for index, fault in enumerate(self.plan.fault):
            if not _concerns(fault, op=op, method=method, path=path):
                continue
            self._seen[index] += 1
            if self._strikes(index, fault):
                self._done[index] += 1
                yield fault

    def _strikes(self, index: int, fault: Fault) -> bool:
        seen = self._seen[index]
        if fault.limit and self._done[index] >= fault.limit:
            return False
        if fault.nth and seen not in fault.nth:
            return False
        if fault.every and seen % fault.every:
            return False
        return fault.probability >= 1.0 or self._dice.random() < fault.probability

    def patience(self, op: str) -> float | None:
        """Return the seconds that a request of this operation may take, None without limit."""
        limit = self.plan.throttle
        return limit.body_seconds if limit.body_seconds and fnmatchcase(op, limit.op) else None

    def throttled(self, *, op: str, length: int, now: float) -> bool:
        """Say whether a request of `length` body bytes is over the limit; counts it when it is not."""
        limit = self.plan.throttle
        if not (limit.requests_per_second or limit.mib_per_second) or not fnmatchcase(op, limit.op):
            return False
        while self._recent and self._recent[0][0] <= now - 1.0:
            self._recent_bytes -= self._recent.popleft()[1]
        too_many = limit.requests_per_second and len(self._recent) >= limit.requests_per_second
        too_big = limit.mib_per_second and self._recent_bytes + length > limit.mib_per_second * (
            1 << 20
        )
        if too_many or (too_big and self._recent):
            return True
        self._recent.append((now, length))
        self._recent_bytes += length
        return False


def _concerns(fault: Fault, *, op: str, method: str, path: str) -> bool:
    return (
        fnmatchcase(op, fault.op)
        and fault.method in ("", method)
        and (not fault.path or re.search(fault.path, path) is not None)
    )
