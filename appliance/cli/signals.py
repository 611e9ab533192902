"""Signals that ask a command to end, turned into a question that the work asks itself from time to time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Asked:
    """Which signal came; 0: none so far."""

    number = 0

    def __call__(self) -> bool:
        """Tell whether to end."""
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """What a shell would report."""
        return 128 + self.number


@contextmanager
def asked_to_end() -> Iterator[Asked]:
    """Remember Ctrl-C, SIGTERM and SIGHUP instead of dying of the first; the second does what it always did.

    Outside of the main thread, where nobody can, nothing is caught.
    """
    asked = Asked()
    before: dict[int, object] = {}

    def remember(number: int, _frame: FrameType | None) -> None:
        asked.number = number
        restore()

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() returned

    if threading.current_thread() is threading.main_thread():
        for number in _ASKING:
            if signal.getsignal(number) is signal.SIG_IGN:  # nohup, or a job in the background
                continue
            before[number] = signal.signal(number, remember)
    try:
        yield asked
    finally:
        restore()
