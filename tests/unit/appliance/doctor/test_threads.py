"""Blocking calls of checks: values, errors, and a thread that hangs is left behind."""

import asyncio
import threading

import pytest

from appliance.doctor.threads import in_thread


async def test_the_value_comes_back_from_another_thread() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_the_error_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_a_caller_that_is_cancelled_does_not_wait_and_the_thread_keeps_no_process() -> None:
    release, seen = threading.Event(), []

    def hang() -> None:
        seen.append(threading.current_thread())
        release.wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_thread(hang)
    (thread,) = seen
    assert thread.is_alive()
    assert thread.daemon
    release.set()
    thread.join()
    await asyncio.sleep(0)  # what it delivers now is dropped
