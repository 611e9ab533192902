"""Threads: a cancelled call waits for its thread only if it shares buffers with it."""

import asyncio
import threading

import pytest

from agent.threads import Pool, run_blocking


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
