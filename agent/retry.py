"""Retry: which error is tried again, and after how long. Decides on the class, never on text.

`RetryPolicy` is pure; `Retrier` is the loop that sleeps, for coroutines and for worker threads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.errors import NeedsOperator, Retryable, Throttled
from agent.threads import Stop

T = TypeVar("T")


class TransferStalled(NeedsOperator):
    """One request failed again and again for longer than the retry policy allows; everything else is kept."""

    code = "transfer.stalled"
    exit_code = 69
    http_status = 503
    fix = "Look at the last error and the network path to the target, then order it again with --retry (API: retry_of)."


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter: a random wait below min(cap, base * 2**n), for at most `patience_s` since the first failure.

    Attributes:
        base_s: First upper bound of the wait.
        cap_s: Highest upper bound; short, because an appliance that sleeps for minutes looks dead.
        patience_s: How long one request may keep failing before the job stops.
        gated_cap_s: Highest upper bound after a throttle, where a gate cuts the requests in flight as well: both
            together would leave a service idle that refuses only what is above its rate.
    """

    base_s: float = 0.5
    cap_s: float = 30.0
    patience_s: float = 900.0
    gated_cap_s: float | None = None

    def delay(
        self, failures: int, error: Exception, *, failing_s: float, random: float
    ) -> float | None:
        """Return the seconds to wait before the next try, None to give up.

        Args:
            failures: How often this request failed in a row, this time included (1 at first).
            error: What it failed with.
            failing_s: Seconds since its first failure.
            random: In [0, 1).
        """
        if not isinstance(error, Retryable) or failing_s > self.patience_s:
            return None
        bound = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 16))
        if self.gated_cap_s is not None and isinstance(error, Throttled):
            bound = min(bound, self.gated_cap_s)
        return max(random * bound, error.retry_after or 0.0)


@dataclass(slots=True)
class _Failures:
    """How often one request failed in a row, and since when (seconds by the retrier's clock)."""

    count: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrier:
    """Runs one request, which must be idempotent, until it succeeds or the policy gives up."""

    policy: RetryPolicy
    now: Callable[[], float]
    random: Callable[[], float]

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return what `request` returns in the end.

        Raises:
            TransferStalled: It kept failing with retryable errors for longer than `patience_s`.
            Exception: Whatever else the request raises, at once.
        """
        failures = _Failures()
        while True:
            try:
                return await request()
            except Retryable as err:
                wait = self._wait_after(err, failures)
            await asyncio.sleep(wait)

    def call_blocking(
        self, request: Callable[[], T], stop: Stop, *, failed: Callable[[Retryable], None]
    ) -> T:
        """Do the same in a worker thread; `failed` gets every error that will be tried again.

        Raises:
            Cancelled: `stop` was set while it waited. Else as `call`.
        """
        failures = _Failures()
        while True:
            try:
                return request()
            except Retryable as err:
                stop.check()  # a connection that the stop itself broke is no failure
                wait = self._wait_after(err, failures)
                failed(err)
            stop.sleep(wait)

    def _wait_after(self, err: Retryable, failures: _Failures) -> float:
        now = self.now()
        if not failures.count:
            failures.since = now
        failures.count += 1
        failing_s = now - failures.since
        wait = self.policy.delay(failures.count, err, failing_s=failing_s, random=self.random())
        if wait is None:
            raise _stalled(err, failures.count, failing_s) from err
        return wait


def _stalled(err: Retryable, failures: int, failing_s: float) -> TransferStalled:
    msg = f"one request failed {failures} times in {failing_s:.0f} s, last with {err.code}: {err}"
    return TransferStalled(msg, last=err.code, failures=failures, **err.fields)
