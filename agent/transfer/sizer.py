"""Sizer: how many bytes one request carries, adapted so that it ends long before the service's time limit. Pure.

Many parallel 4 MiB bodies on a thin uplink each take longer than a service waits (azcopy issues 701, 1219, 2788): it
answers 500 OperationTimedOut for ever. Here a request that took more than `SLOW_S` halves the next ones, quick ones
double them again, and a time-out halves them at once; once a `DEAD_BAND_S`, for those in flight are one complaint.
"""

import threading
from collections.abc import Callable

SLOW_S = 10.0
QUICK_S = 2.0
DEAD_BAND_S = 2.0


class Sizer:
    """The size of a request between a least and a most; thread-safe."""

    def __init__(self, *, least: int, most: int, now: Callable[[], float]) -> None:
        """Begin with the most: `most` is `least` times a power of two."""
        self._least = least
        self._most = most
        self._size = most
        self._now = now
        self._changed_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that a request should carry now."""
        return self._size

    def took(self, seconds: float, length: int) -> None:
        """Note a request that succeeded."""
        if seconds > SLOW_S:
            self._change(lambda size: size // 2)
        elif seconds < QUICK_S and length >= self._size:
            self._change(lambda size: size * 2)

    def timed_out(self) -> None:
        """Note one that the service, or we, gave up waiting for."""
        self._change(lambda size: size // 2)

    def _change(self, change: Callable[[int], int]) -> None:
        with self._lock:
            now = self._now()
            if now - self._changed_at < DEAD_BAND_S:
                return
            wanted = min(self._most, max(self._least, change(self._size)))
            if wanted != self._size:
                self._size = wanted
                self._changed_at = now
