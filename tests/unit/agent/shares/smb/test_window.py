"""The depth follows the way to the server: it grows where waiting is the way's, and not where it is the queue's."""

import threading

import pytest

from agent.shares.smb import seal, status
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.window import MOST_QUEUED, Depth, Slots

LOW, HIGH = 4, 32
GUARD = 30.0


def _run(depth: Depth, *, round_trip: float, service: float, answers: int = 3000) -> None:
    """Answer as a server would that takes `service` for each request, `round_trip` away."""
    for _ in range(answers):
        depth.answered(max(round_trip + service, depth.value * service))


def test_a_near_server_gets_no_more_than_it_can_queue() -> None:
    depth = Depth(LOW, HIGH)
    _run(depth, round_trip=0.0001, service=0.001)
    assert depth.value <= LOW + MOST_QUEUED


def test_a_far_server_gets_as_many_as_fit_on_the_way() -> None:
    depth = Depth(LOW, HIGH)
    _run(depth, round_trip=0.020, service=0.001)
    assert 20 <= depth.value <= 21 + 2 * MOST_QUEUED


def test_the_depth_never_leaves_its_bounds() -> None:
    depth = Depth(LOW, HIGH)
    _run(depth, round_trip=10.0, service=0.001)
    assert depth.value == HIGH
    _run(depth, round_trip=0.0, service=1.0)
    assert LOW <= depth.value <= HIGH


def test_an_exhausted_server_gets_half_and_later_more_again() -> None:
    depth = Depth(8, HIGH)
    depth.exhausted()
    assert depth.value == 4
    for _ in range(10):
        depth.exhausted()
    assert depth.value == 1
    _run(depth, round_trip=0.05, service=0.001)
    assert depth.value > 16


def test_slots_are_as_many_as_the_depth_says() -> None:
    slots = Slots(Depth(2, 2), timeout=0.01)
    assert slots.take(wait=False)
    assert slots.take(wait=True)
    assert not slots.take(wait=False)
    with pytest.raises(TimeoutError):
        slots.take(wait=True)
    slots.give_back(Ticket(8))
    assert slots.take(wait=False)


def test_who_waits_gets_the_slot_that_comes_back() -> None:
    slots = Slots(Depth(1, 1), timeout=GUARD)
    slots.take(wait=True)
    waiter = threading.Thread(target=slots.take, kwargs={"wait": True})
    waiter.start()
    slots.give_back(Ticket(8))
    waiter.join(GUARD)
    assert not waiter.is_alive()


def test_a_refusal_for_want_of_resources_shrinks_the_depth() -> None:
    slots = Slots(Depth(4, 4), timeout=1)
    ticket = Ticket(8)
    slots.take(wait=True)
    ticket.finish(seal.Head(status.INSUFFICIENT_RESOURCES, 8, 1, 1, 0, 0, b""))
    slots.give_back(ticket)
    assert slots.depth.value == 2
