"""A fixed pool of reusable buffers: the memory ceiling of a job, by construction.

Threads take, the event loop gives back.
"""

import threading

from agent.errors import Cancelled


class BufferPool:
    """`count` buffers of `size` bytes, made when first needed; memory <= count * size."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._left = count
        self._free: list[bytearray] = []
        self._closed = False
        self._changed = threading.Condition()

    def take(self) -> bytearray:
        """Return a buffer with undefined content; blocks until one is free. From worker threads only.

        Raises:
            Cancelled: The pool was closed.
        """
        with self._changed:
            while not self._closed and not self._free and not self._left:
                self._changed.wait()
            if self._closed:
                raise Cancelled("the transfer was stopped")
            if self._free:
                return self._free.pop()
            self._left -= 1
        return bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        """Give a buffer back. From any thread, never blocks for long."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def close(self) -> None:
        """Wake every waiter with Cancelled; buffers in use are dropped by their users."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()
