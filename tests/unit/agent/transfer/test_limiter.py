"""The limiter spends a bucket of one second, goes into debt rather than starve, and can be changed while it waits."""

import asyncio

import pytest

from agent.transfer import limiter as module
from agent.transfer.limiter import Limiter


class Clock:
    at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock(monkeypatch):
    """A clock that sleeping moves."""
    clock = Clock()

    async def sleep(seconds):
        clock.at += seconds

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return clock


async def test_without_a_rate_nothing_waits(clock):
    await Limiter(None, now=clock).take(10**12)
    assert clock.at == 100.0


async def test_bytes_cost_time_at_the_rate(clock):
    limiter = Limiter(1000, now=clock)
    for _ in range(11):
        await limiter.take(1000)
    assert 8.5 < clock.at - 100.0 < 11.0


async def test_a_request_above_the_bucket_is_paid_afterwards(clock):
    limiter = Limiter(1000, now=clock)
    await limiter.take(5000)
    assert clock.at == 100.0
    await limiter.take(1)
    assert clock.at - 100.0 >= 4.0


async def test_the_parent_is_asked_too(clock):
    parent = Limiter(100, now=clock)
    child = Limiter(None, now=clock, parent=parent)
    for _ in range(3):
        await child.take(100)
    assert clock.at - 100.0 >= 1.0


async def test_lifting_the_limit_frees_who_waits():
    limiter = Limiter(64 * 1024, now=asyncio.get_running_loop().time)
    await limiter.take(10**9)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(limiter.take(1))
        await asyncio.sleep(0)
        limiter.set_rate(None)
