"""A queue of websocket messages bounded by number and bytes, for one reader task. Used from the event loop only."""

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Mailbox:
    """Memory: at most `max_bytes` plus one message.

    Attributes:
        max_items / max_bytes: What may wait; one message is always taken, whatever its size.
        due: Set when there is something to look at; the reader clears it. Others may set it too.
    """

    max_items: int
    max_bytes: int
    due: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _items: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def full(self) -> bool:
        """Whether nothing more should be put in."""
        return len(self._items) >= self.max_items or self._bytes >= self.max_bytes

    def offer(self, data: bytes) -> bool:
        """Put a message in if there is room."""
        if self.full:
            return False
        self._items.append(data)
        self._bytes += len(data)
        self.due.set()
        return True

    async def put(self, data: bytes, *, seconds: float) -> bool:
        """Put a message in, waiting for room at most so long; False if there was none."""
        try:
            async with asyncio.timeout(seconds):
                while not self.offer(data):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> bytes:
        """Return the oldest message. Raises IndexError if there is none."""
        data = self._items.popleft()
        self._bytes -= len(data)
        self._room.set()
        return data
