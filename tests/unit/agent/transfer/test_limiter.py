"""The limiter spends a bucket of one second, goes into debt rather than starve, and can be changed while it waits."""

import contextlib
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


@pytest.mark.parametrize("workers", [1, 6])
def test_those_who_share_a_bucket_get_the_same_of_it(workers):
    """One job asks with one worker in small pieces, another with several in large ones; both always want more."""
    parent = Limiter(40_000_000, now=time.monotonic)
    few, many = (Limiter(None, now=time.monotonic, parent=parent) for _ in range(2))
    parent.share(40_000_000, Stop(), few)  # the bucket is empty
    got, stop, lock = {few: 0, many: 0}, Stop(), threading.Lock()

    def ask(child, size):
        with contextlib.suppress(Cancelled):
            while True:
                child.take(size, stop)
                with lock:
                    got[child] += size

    jobs = [(few, 100_000), *[(many, 400_000)] * workers]
    threads = [threading.Thread(target=ask, args=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    while sum(got.values()) < 24_000_000:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert 0.7 < got[few] / got[many] < 1.4


def test_who_comes_late_gets_no_arrears(clock, stop):
    parent = Limiter(1000, now=clock)
    early, late = (Limiter(None, now=clock, parent=parent) for _ in range(2))
    for _ in range(50):
        early.take(1000, stop)
    began = clock.at
    parent._waiting[early] += 1  # it wants more all the time
    late.take(1000, stop)
    assert parent._served[late] <= parent._served[early] + 1000
    assert clock.at - began < 3.0


def test_who_left_is_not_waited_for(clock, stop):
    parent = Limiter(1000, now=clock)
    gone, here = (Limiter(None, now=clock, parent=parent) for _ in range(2))
    here.take(5000, stop)
    gone.take(1, stop)
    here.take(1000, stop)  # served more than the other, who is not here any more
    assert not parent._waiting
