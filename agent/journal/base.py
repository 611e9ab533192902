"""What a running job may ask of the journal: receipts, checkpoints and write-ahead intents. Protocols only.

`agent.journal.job.JobJournal` implements all of them on SQLite; tests and the pump need only these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class IntentLike(Protocol):
    """The fields of `agent.targets.base.Intent` that the journal stores."""

    @property
    def kind(self) -> str:
        """Object kind in the provider's words."""
        ...

    @property
    def scope(self) -> dict[str, str]:
        """Where, flat."""
        ...

    @property
    def name(self) -> str:
        """Deterministic object name."""
        ...


@dataclass(frozen=True, slots=True)
class KnownIntent:
    """One object that this line of jobs created, or was about to; `object_id` is "" if none was recorded."""

    kind: str
    scope: dict[str, str]
    name: str
    object_id: str


class Receipts(Protocol):
    """Which ranges of the target disk the service acknowledged, with the digests of their blocks."""

    def load(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, length, digests) of every durable receipt, by offset; the last one of an offset wins.

        Reads the journal while it is iterated, through a connection of its own: iterate it in a worker thread.
        """
        ...

    def add(self, offset: int, length: int, digests: bytes) -> None:
        """Note one acknowledged range. From the loop, cheap; durable after at most 1 s or 64 receipts."""
        ...

    async def flush(self) -> None:
        """Return when every receipt added so far is durable."""
        ...


class JobStore(Receipts, Protocol):
    """One job's part of the journal. Also an `agent.targets.base.IntentLog`.

    Every awaited call returns only when the journal is durable; a full disk raises `journal.full`.
    """

    async def record(self, intent: IntentLike) -> None:
        """Write that `intent` is about to be created. The same intent again is no change."""
        ...

    async def created(self, intent: IntentLike, object_id: str) -> None:
        """Write the provider's stable id of the created object."""
        ...

    async def removed(self, intent: IntentLike) -> None:
        """Write that the object is gone again."""
        ...

    def known(self, intent: IntentLike) -> str | None:
        """Return the object id recorded for an intent of this line, "" if recorded without one, None if unknown."""
        ...

    def intents(self) -> list[KnownIntent]:
        """Return every intent of this line that is not known to be removed, oldest first."""
        ...

    async def checkpoint(self, data: Mapping[str, Any]) -> None:
        """Replace the job's checkpoint (msgpack-able, at most 64 KiB). It resets the crash-loop count."""
        ...

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint of this line, None if there is none."""
        ...

    async def forget_receipts(self) -> None:
        """Drop every receipt: the object that they were written to is not the one at hand."""
        ...

    async def point_of_no_return(self) -> None:
        """Mark that the job's own end stands from here on, whatever a cancel says.

        Raises:
            Cancelled: A cancel came first; stop now.
        """
        ...
