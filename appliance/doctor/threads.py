"""Blocking calls of checks, in daemon threads: a thread that hangs in the kernel does not keep the doctor from ending.

Unlike agent.threads, whose pools are joined at exit because they hold buffers of jobs; nothing is shared here.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(fn: Callable[[], T]) -> T:
    """Return `fn()`; when cancelled, forget the thread and go on at once."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: Exception | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # None only where T is

    def work() -> None:
        value: T | None = None
        error: Exception | None = None
        try:
            value = fn()
        except Exception as err:  # noqa: BLE001 - raised where it is awaited
            error = err
        with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits
            loop.call_soon_threadsafe(deliver, value, error)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return await result
