"""Threads: a cancelled call waits for its thread only if it shares buffers with it; a stop wakes whoever waits."""

import asyncio
import threading

import pytest

from agent.errors import Cancelled
from agent.threads import Pool, Stop, run_blocking


async def test_the_value_and_the_exception_come_back() -> None:
    pool = Pool("test", 1)
    assert await run_blocking(pool, lambda: threading.current_thread().name) == "test_0"
    with pytest.raises(KeyError):
        await run_blocking(pool, lambda: {}["x"])
    pool.close()


async def test_a_cancelled_call_with_a_stop_flag_returns_after_its_thread_has_left() -> None:
    pool = Pool("test", 1)
    stop, left = threading.Event(), threading.Event()
    entered, loop = asyncio.Event(), asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(entered.set)
        stop.wait(30)
        left.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_blocking(pool, work, stop=stop))
        await entered.wait()
        task.cancel()
    assert task.cancelled()
    assert left.is_set()
    pool.close()


async def test_without_a_flag_a_cancelled_caller_goes_on_at_once() -> None:
    pool = Pool("test", 1)
    release = threading.Event()
    entered, loop = asyncio.Event(), asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(entered.set)
        release.wait(30)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_blocking(pool, work))
        await entered.wait()
        task.cancel()
    assert task.cancelled()
    assert not release.is_set()
    release.set()
    pool.close()


def test_a_stop_calls_who_asked_to_be_woken_once_and_only_while_they_wait() -> None:
    stop, woken = Stop(), []
    with stop.waking(lambda: woken.append("gone")):
        pass
    with stop.waking(lambda: woken.append("first")), stop.waking(lambda: woken.append("second")):
        stop.set()
        stop.set()
    assert woken == ["first", "second"]


def test_who_comes_after_the_stop_is_woken_at_once() -> None:
    stop, woken = Stop(), []
    stop.set()
    with stop.waking(lambda: woken.append(1)):
        assert woken == [1]
    with pytest.raises(Cancelled):
        stop.check()
    with pytest.raises(Cancelled):
        stop.sleep(30)
