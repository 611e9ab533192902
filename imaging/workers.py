"""Workers: one piece of work in several threads; the first error ends them all and is the one that is told.

Knows no disk.
"""

import threading
from collections.abc import Callable


def run_workers(
    work: Callable[[], None], *, count: int, name: str, abort: Callable[[], None]
) -> None:
    """Call `work` in `count` threads at once and return when all calls have ended. Blocking.

    Args:
        work: Shares out what there is to do by itself; returns when nothing is left.
        count: Threads.
        name: Of the threads.
        abort: Makes every call of `work` end soon. From any thread; may be called more than once.

    Raises:
        Whatever `work` raised first, or ended the waiting (Ctrl-C); all threads have left `work` by then.
    """
    errors: list[BaseException] = []
    lock = threading.Lock()

    def guarded() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001  (raised again by the caller's thread)
            with lock:
                errors.append(err)
            abort()

    threads = [threading.Thread(target=guarded, name=f"{name}_{i}") for i in range(count)]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        for thread in started:
            thread.join()
    except BaseException:
        abort()
        raise
    finally:
        for thread in started:
            thread.join()
    if errors:
        raise errors[0]
