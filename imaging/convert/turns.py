"""Turns: threads that take numbered turns in the order of the numbers, whoever comes first."""

import threading

from imaging.errors import Stopped


class Turns:
    """Numbers 0, 1, 2, ...: each is taken once, and given back before the next one can be taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._aborted = False

    def take(self, number: int) -> None:
        """Wait until all lower numbers were given back.

        Raises:
            Stopped: `abort` was called: some number will never come.
        """
        with self._changed:
            while self._next != number and not self._aborted:
                self._changed.wait()
            if self._aborted:
                raise Stopped("another worker failed")

    def give(self) -> None:
        """End the turn that was taken."""
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def abort(self) -> None:
        """Wake everybody who waits, and let nobody take a turn any more."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
