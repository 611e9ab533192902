"""Blocking SDKs off the loop: named, bounded pools of threads; never the default executor.

The default executor has cpu+4 workers and shares them with getaddrinfo, and cancelling a call does not stop its
thread. So each SDK gets a pool of its own, and a call that uses its caller's buffers takes a `stop` flag.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.errors import Cancelled

T = TypeVar("T")


class Stop(threading.Event):
    """The end of work that several threads do: set once, from anywhere; wakes who waits for something else than it."""

    def __init__(self) -> None:
        super().__init__()
        self._wakers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Set, and call every waker."""
        with self._lock:
            super().set()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake`, which neither blocks nor raises, called by whoever sets this; at once if it is set already."""
        with self._lock:
            late = self.is_set()
            if not late:
                self._wakers.append(wake)
        if late:
            wake()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._wakers.remove(wake)

    def check(self) -> None:
        """Raise Cancelled once this is set."""
        if self.is_set():
            raise Cancelled("the work was stopped")

    def sleep(self, seconds: float) -> None:
        """Wait; raises Cancelled as soon as this is set."""
        self.wait(seconds)
        self.check()


class Pool:
    """Threads for one purpose ("smb", "digest"), made when first needed, at most `workers` of them."""

    def __init__(self, name: str, workers: int) -> None:
        """Name the threads and bound their number."""
        self.name = name
        self.workers = workers
        self.executor = ThreadPoolExecutor(workers, thread_name_prefix=name)

    def close(self) -> None:
        """Take no more work and drop what has not begun; running calls end by their stop flags."""
        self.executor.shutdown(wait=False, cancel_futures=True)


async def run_blocking(
    pool: Pool, fn: Callable[[], T], *, stop: threading.Event | None = None
) -> T:
    """Run `fn` in a thread of `pool` and return its value.

    Args:
        pool: Where.
        fn: Takes no argument; bind with a lambda or functools.partial.
        stop: Set when the caller is cancelled; the call then returns only after the thread has left `fn`, so that
            buffers and sessions are free again. Without it a cancelled caller goes on at once and the thread's value
            is dropped: only for calls that share nothing with their caller.
    """
    work = asyncio.get_running_loop().run_in_executor(pool.executor, fn)
    if stop is None:
        return await work
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await until_done(work)
        raise


async def until_done(work: "asyncio.Future[T]") -> None:
    """Wait for a thread, whatever it raises and however often the waiter is cancelled."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # looked at, so that it is not reported as never retrieved
