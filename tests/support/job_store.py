"""A job's journal in memory: implements agent.journal.base.JobStore, counts what it is asked. For tests of stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import Cancelled
from agent.journal.base import IntentLike, KnownIntent


@dataclass
class MemoryJobStore:
    """Everything is durable at once."""

    receipts: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    objects: dict[tuple[str, str], KnownIntent] = field(default_factory=dict)
    data: dict[str, Any] | None = None
    past_no_return: bool = False
    cancelled: bool = False
    forgotten: int = 0

    def load(self) -> Iterator[tuple[int, int, bytes]]:
        for offset in sorted(self.receipts):
            length, digests = self.receipts[offset]
            yield offset, length, digests

    def add(self, offset: int, length: int, digests: bytes) -> None:
        self.receipts[offset] = (length, digests)

    async def flush(self) -> None:
        return None

    async def record(self, intent: IntentLike) -> None:
        known = self.objects.get((intent.kind, intent.name))
        if known is None:
            self._set(intent, "")

    async def created(self, intent: IntentLike, object_id: str) -> None:
        self._set(intent, object_id)

    async def removed(self, intent: IntentLike) -> None:
        self.objects.pop((intent.kind, intent.name), None)

    def known(self, intent: IntentLike) -> str | None:
        known = self.objects.get((intent.kind, intent.name))
        return None if known is None else known.object_id

    def intents(self) -> list[KnownIntent]:
        return list(self.objects.values())

    async def checkpoint(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)

    def load_checkpoint(self) -> dict[str, Any] | None:
        return self.data

    async def forget_receipts(self) -> None:
        self.forgotten += 1
        self.receipts.clear()

    async def point_of_no_return(self) -> None:
        if self.cancelled:
            raise Cancelled("a cancel came first")
        self.past_no_return = True

    def _set(self, intent: IntentLike, object_id: str) -> None:
        key = (intent.kind, intent.name)
        self.objects[key] = KnownIntent(intent.kind, intent.scope, intent.name, object_id)
