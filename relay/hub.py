"""Wakes event streams when their tenant's events changed. Carries no data: a stream reads the store.

So a slow reader costs one flag, however much happens: on its next read it gets every state change and the latest
progress of each job, because that is what the store keeps. Used from the event loop's thread only.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Subscription:
    """One stream's flag."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> bool:
        """Wait for a change and clear the flag; False if none came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True


@dataclass(slots=True)
class Hub:
    """All streams by tenant."""

    closed: bool = False
    _streams: dict[str, set[Subscription]] = field(default_factory=dict)

    @contextmanager
    def subscribe(self, tenant: str) -> Iterator[Subscription]:
        """Register a stream for as long as the context lasts. Subscribe first, then read the store."""
        stream = Subscription()
        streams = self._streams.setdefault(tenant, set())
        streams.add(stream)
        try:
            yield stream
        finally:
            streams.discard(stream)
            if not streams and self._streams.get(tenant) is streams:
                del self._streams[tenant]

    def count(self, tenant: str) -> int:
        """Return how many streams a tenant has."""
        return len(self._streams.get(tenant, ()))

    def poke(self, tenant: str) -> None:
        """Wake a tenant's streams."""
        for stream in self._streams.get(tenant, ()):
            stream.changed.set()

    def close(self) -> None:
        """Wake everybody for the last time: streams end when they see `closed`."""
        self.closed = True
        for tenant in self._streams:
            self.poke(tenant)
