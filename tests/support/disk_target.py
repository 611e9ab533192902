"""A target disk in memory with scripted failures and pauses: implements agent.targets.base.TargetDisk. For tests."""

import threading
from collections import deque
from collections.abc import AsyncIterator

from agent.targets.base import Artifact, TargetLimits
from agent.threads import Stop
from imaging.extent import Extent
from imaging.memory import MemoryDevice
from imaging.units import MiB, TiB

LIMITS = TargetLimits(
    chunk=4 * MiB,
    alignment=512,
    granularity=1 * MiB,
    min_size=512,
    max_size=64 * TiB,
    inflight_start=3,
    inflight_max=4,
)


class MemoryDisk:
    """Keeps what was put.

    Attributes:
        script: For each put in turn: an exception to raise before writing, ("after", exception) to raise after, None.
        puts: (offset, length, checksum) of every acknowledged put.
        hold: While not None, every put waits for it, or for the stop.
    """

    def __init__(self, size: int, *, script: tuple = ()) -> None:
        self.device = MemoryDevice(size)
        self.script: deque = deque(script)
        self.puts: list[tuple[int, int, str | None]] = []
        self.resumed = False
        self.checksum = None
        self.hold: threading.Event | None = None
        self._lock = threading.Lock()
        self.holes: list[tuple[int, int]] = []
        self.inflight = self.inflight_most = 0
        self.reads = 0

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        with self._lock:
            self.inflight += 1
            self.inflight_most = max(self.inflight_most, self.inflight)
        try:
            while self.hold is not None and not self.hold.wait(0.01):
                stop.check()
            with self._lock:
                self._put(offset, data, checksum)
        finally:
            with self._lock:
                self.inflight -= 1

    def _put(self, offset, data, checksum):
        step = self.script.popleft() if self.script else None
        if isinstance(step, Exception):
            raise step
        self.device.write(offset, data)
        if step is not None:
            raise step[1]
        self.puts.append((offset, len(data), checksum))

    async def seal(self, digest) -> None:
        return None

    async def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        for extent in self.device.extents(offset, length):
            yield extent

    async def read(self, offset: int, buffer: memoryview) -> None:
        self.reads += 1
        self.device.read_into(offset, buffer)

    async def reject(self) -> None:
        return None

    async def finish(self) -> Artifact:
        return Artifact("memory.disk", "memory", {})

    async def close(self) -> None:
        return None
