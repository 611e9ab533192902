"""Retry decides on the class, waits with full jitter, honours the service's wish and gives up by name."""

import pytest

from agent.errors import Cancelled, Permanent, Retryable, Throttled
from agent.retry import Retrier, RetryPolicy, TransferStalled
from agent.threads import Stop

POLICY = RetryPolicy(base_s=0.5, cap_s=30.0, patience_s=900.0)


@pytest.mark.parametrize(
    ("failures", "bound"), [(1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (50, 30.0)], ids=str
)
def test_wait_is_below_the_doubling_bound_and_the_cap(failures, bound):
    error = Retryable("x")
    assert POLICY.delay(failures, error, failing_s=0, random=0.999) <= bound
    assert POLICY.delay(failures, error, failing_s=0, random=0.999) > bound * 0.99
    assert POLICY.delay(failures, error, failing_s=0, random=0.0) == 0


def test_the_services_wish_is_a_lower_bound():
    assert POLICY.delay(1, Throttled("x", retry_after=7.0), failing_s=0, random=0.0) == 7.0


def test_behind_a_gate_a_throttle_costs_little_time_and_other_failures_cost_what_they_cost():
    gated = RetryPolicy(base_s=0.5, cap_s=30.0, gated_cap_s=0.5)
    assert gated.delay(9, Throttled("x"), failing_s=0, random=0.999) <= 0.5
    assert gated.delay(9, Retryable("x"), failing_s=0, random=0.999) > 29.0
    assert gated.delay(1, Throttled("x", retry_after=7.0), failing_s=0, random=0.0) == 7.0
    assert POLICY.delay(9, Throttled("x"), failing_s=0, random=0.999) > 29.0


def test_other_classes_are_never_tried_again():
    assert POLICY.delay(1, Permanent("x"), failing_s=0, random=0.5) is None
    assert POLICY.delay(1, ValueError("x"), failing_s=0, random=0.5) is None


def test_patience_ends():
    assert POLICY.delay(3, Retryable("x"), failing_s=900.1, random=0.5) is None


class Clock:
    """Every look costs a second."""

    def __init__(self, step=1.0):
        self.at = 0.0
        self.step = step

    def __call__(self):
        self.at += self.step
        return self.at


def retrier(**policy):
    return Retrier(policy=RetryPolicy(**policy), now=Clock(), random=lambda: 0.0)


class Scripted:
    """Fails as scripted, then answers."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    async def later(self):
        return self()


async def test_a_request_is_repeated_until_it_succeeds():
    request = Scripted(Throttled("slow down"), Retryable("gone"))
    assert await retrier().call(request.later) == "done"
    assert request.calls == 3


def test_a_blocking_request_is_repeated_and_its_failures_are_told():
    first, second = Throttled("slow down"), Retryable("gone")
    told = []
    request = Scripted(first, second)
    assert retrier().call_blocking(request, Stop(), failed=told.append) == "done"
    assert told == [first, second]


def test_giving_up_is_the_same_in_a_thread():
    request, told = Scripted(*(Retryable("no route") for _ in range(100))), []
    with pytest.raises(TransferStalled, match=r"agent\.retryable: no route"):
        retrier(patience_s=5.0).call_blocking(request, Stop(), failed=told.append)
    assert request.calls < 10
    assert len(told) == request.calls - 1  # the last one is not tried again


def test_a_stop_ends_the_waiting_and_what_it_broke_is_no_failure():
    stop, told = Stop(), []

    def request():
        stop.set()
        raise Retryable("connection reset")

    with pytest.raises(Cancelled):
        retrier().call_blocking(request, stop, failed=told.append)
    assert told == []


async def test_giving_up_names_the_last_error_and_keeps_it_as_cause():
    async def request():
        raise Retryable("no route", host="x")

    with pytest.raises(TransferStalled, match=r"agent\.retryable: no route") as caught:
        await retrier(patience_s=5.0).call(request)
    assert isinstance(caught.value.__cause__, Retryable)
    assert caught.value.fields["host"] == "x"


async def test_a_permanent_error_goes_up_at_once():
    calls = []

    async def request():
        calls.append(1)
        raise Permanent("forbidden")

    with pytest.raises(Permanent):
        await retrier().call(request)
    assert calls == [1]
