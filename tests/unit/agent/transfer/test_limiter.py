"""The limiter spends a bucket of one second, goes into debt rather than starve, and can be changed while it waits."""

import threading
import time

import pytest

from agent.errors import Cancelled
from agent.threads import Stop
from agent.transfer.limiter import Limiter


class Clock:
    at = 100.0

    def __call__(self):
        return self.at


class Sleeper(Stop):
    """A stop whose sleep moves a clock."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def sleep(self, seconds):
        self.clock.at += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stop(clock):
    return Sleeper(clock)


def test_without_a_rate_nothing_waits(clock, stop):
    Limiter(None, now=clock).take(10**12, stop)
    assert clock.at == 100.0


def test_bytes_cost_time_at_the_rate(clock, stop):
    limiter = Limiter(1000, now=clock)
    for _ in range(11):
        limiter.take(1000, stop)
    assert 8.5 < clock.at - 100.0 < 11.0


def test_a_request_above_the_bucket_is_paid_afterwards(clock, stop):
    limiter = Limiter(1000, now=clock)
    limiter.take(5000, stop)
    assert clock.at == 100.0
    limiter.take(1, stop)
    assert clock.at - 100.0 >= 4.0


def test_the_parent_is_asked_too(clock, stop):
    parent = Limiter(100, now=clock)
    child = Limiter(None, now=clock, parent=parent)
    for _ in range(3):
        child.take(100, stop)
    assert clock.at - 100.0 >= 1.0


def in_debt():
    limiter = Limiter(64 * 1024, now=time.monotonic)
    limiter.take(10**9, Stop())
    return limiter


def test_lifting_the_limit_frees_who_waits():
    limiter, stop = in_debt(), Stop()
    waiting = threading.Thread(target=limiter.take, args=(1, stop), daemon=True)
    waiting.start()
    limiter.set_rate(None)
    waiting.join(30)
    assert not waiting.is_alive()


def test_who_waits_can_be_stopped():
    limiter, stop = in_debt(), Stop()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    with pytest.raises(Cancelled):
        limiter.take(1, stop)
    timer.join()
