"""The gate bounds what is in flight, grows slowly, shrinks fast, and lets a stopped waiter go."""

import threading

import pytest

from agent.errors import Cancelled
from agent.threads import Stop
from agent.transfer.gate import DEAD_BAND_S, Gate


class Clock:
    at = 0.0

    def __call__(self):
        return self.at


class Holders:
    """Threads that hold a slot each until they are released."""

    def __init__(self, gate, count, stop=None):
        self.stop = stop or Stop()
        self.held = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.most = self.inside = 0
        self._lock = threading.Lock()
        self._gate = gate
        self._threads = [threading.Thread(target=self._hold, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _hold(self):
        try:
            with self._gate.slot(self.stop):
                with self._lock:
                    self.inside += 1
                    self.most = max(self.most, self.inside)
                self.held.release()
                self.release.acquire(timeout=30)
                with self._lock:
                    self.inside -= 1
        except Cancelled:
            self.cancelled.release()

    def join(self):
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def test_no_more_than_the_limit_are_in_flight():
    holders = Holders(Gate(start=3, most=8, now=Clock()), 7)
    for _ in range(3):
        assert holders.held.acquire(timeout=30)
    assert not holders.held.acquire(timeout=0.05)
    holders.release.release(7)
    holders.join()
    assert holders.most == 3


def test_a_slot_that_success_adds_is_taken_by_a_waiter():
    gate = Gate(start=1, most=2, now=Clock())
    holders = Holders(gate, 2)
    assert holders.held.acquire(timeout=30)
    gate.succeeded()
    assert holders.held.acquire(timeout=30)
    holders.release.release(2)
    holders.join()


def test_a_full_window_of_successes_adds_one_slot_up_to_the_most():
    gate = Gate(start=2, most=3, now=Clock())
    gate.succeeded()
    gate.succeeded()
    gate.succeeded()
    assert gate.limit == 3
    for _ in range(100):
        gate.succeeded()
    assert gate.limit == 3


def test_complaints_inside_the_dead_band_count_once():
    clock = Clock()
    gate = Gate(start=16, most=16, now=clock)
    for _ in range(16):
        gate.throttled()
    assert gate.limit == 10
    clock.at = DEAD_BAND_S
    gate.throttled()
    assert gate.limit == 6


def test_the_limit_never_falls_below_one():
    clock = Clock()
    gate = Gate(start=1, most=4, now=clock)
    for _ in range(20):
        clock.at += 2 * DEAD_BAND_S
        gate.throttled()
    assert gate.limit == 1


def test_stopped_waiters_leave_and_take_no_slot_with_them():
    gate, stop = Gate(start=1, most=1, now=Clock()), Stop()
    holders = Holders(gate, 3, stop)
    assert holders.held.acquire(timeout=30)
    stop.set()
    for _ in range(2):
        assert holders.cancelled.acquire(timeout=30)
    holders.release.release()
    holders.join()
    with gate.slot(Stop()):
        pass


def test_a_wait_that_begins_after_the_stop_raises():
    gate, stop = Gate(start=1, most=1, now=Clock()), Stop()
    stop.set()
    with gate.slot(Stop()), pytest.raises(Cancelled), gate.slot(stop):
        pass


def test_a_request_that_fails_gives_its_slot_back():
    gate, stopped = Gate(start=1, most=1, now=Clock()), Stop()
    with pytest.raises(KeyError), gate.slot(Stop()):
        raise KeyError
    stopped.set()
    with gate.slot(stopped):  # one that had to wait would raise
        pass
