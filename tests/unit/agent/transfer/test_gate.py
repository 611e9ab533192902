"""The gate bounds what is in flight, grows slowly, shrinks fast, and never loses a slot to a cancelled waiter."""

import asyncio

from agent.transfer.gate import DEAD_BAND_S, Gate


class Clock:
    at = 0.0

    def __call__(self):
        return self.at


async def hold(gate, seen, release):
    async with gate.slot():
        seen.append(1)
        await release.wait()


async def test_no_more_than_the_limit_are_in_flight():
    gate, seen, release = Gate(start=3, most=8, now=Clock()), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(7):
            group.create_task(hold(gate, seen, release))
        await asyncio.sleep(0)
        assert len(seen) == 3
        release.set()
    assert len(seen) == 7


async def test_a_full_window_of_successes_adds_one_slot_up_to_the_most():
    gate = Gate(start=2, most=3, now=Clock())
    gate.succeeded()
    gate.succeeded()
    gate.succeeded()
    assert gate.limit == 3
    for _ in range(100):
        gate.succeeded()
    assert gate.limit == 3


async def test_complaints_inside_the_dead_band_count_once():
    clock = Clock()
    gate = Gate(start=16, most=16, now=clock)
    for _ in range(16):
        gate.throttled()
    assert gate.limit == 10
    clock.at = DEAD_BAND_S
    gate.throttled()
    assert gate.limit == 6


async def test_the_limit_never_falls_below_one():
    clock = Clock()
    gate = Gate(start=1, most=4, now=clock)
    for _ in range(20):
        clock.at += 2 * DEAD_BAND_S
        gate.throttled()
    assert gate.limit == 1


async def test_a_cancelled_waiter_does_not_take_the_slot_with_it():
    gate, seen, release = Gate(start=1, most=1, now=Clock()), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(gate, seen, release))
        await asyncio.sleep(0)
        waiter = group.create_task(hold(gate, seen, release))
        await asyncio.sleep(0)
        waiter.cancel()
        group.create_task(hold(gate, seen, release))
        await asyncio.sleep(0)
        release.set()
    assert len(seen) == 2
