"""SMB allowance: message ids and the credits that pay for them, shared with smbprotocol's own requests
([MS-SMB2] 3.2.4.1.2, 3.2.5.1.4). Waits; sends nothing.
"""

import threading
from collections.abc import Callable

RESERVED_CREDITS = 8
"""READs and WRITEs leave these to metadata calls and to the keepalive."""


class Allowance:
    """The window of message ids of one connection. Thread-safe."""

    def __init__(self, window: dict[str, int], lock: threading.Lock) -> None:
        """Take the library's window (`low`, `high`) and the lock that it changes it under."""
        self._window = window
        self._changed = threading.Condition(lock)

    @property
    def left(self) -> int:
        """Credits that the server has granted and we have not used."""
        return self._window["high"] - self._window["low"]

    def take(self, charge: int, *, timeout: float, is_over: Callable[[], bool]) -> int:
        """Wait for credits; return the first of the message ids that they pay for.

        Args:
            charge: How many.
            timeout: Seconds.
            is_over: Whether there is nothing to wait for any more.

        Raises:
            TimeoutError: The server granted too little for too long.
        """
        needed = charge + RESERVED_CREDITS
        with self._changed:
            if self.left < needed and not self._changed.wait_for(
                lambda: self.left >= needed or is_over(), timeout
            ):
                raise TimeoutError(f"no {charge} credits within {timeout} s")
            first = self._window["low"]
            self._window["low"] = first + charge
            return first

    def grant(self, granted: int) -> None:
        """Add what the server grants."""
        with self._changed:
            self._window["high"] += granted
            self._changed.notify_all()

    def wake(self) -> None:
        """Make everybody who waits look whether it is over."""
        with self._changed:
            self._changed.notify_all()
