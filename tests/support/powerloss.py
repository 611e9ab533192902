"""What a disk may hold after a power loss: a file that records what is done to it, and every state that may be left."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from imaging.memory import MemoryDevice

SECTOR = 512
"""What a disk writes whole or not at all."""


@dataclass
class Operation:
    """A write, a truncation (data None), or the flush that makes everything before it durable (offset -1)."""

    offset: int
    data: bytes | None = None


class State(NamedTuple):
    """One of them.

    Attributes:
        content: Of the file.
        durable: Operations that are certainly in it, flushes counted.
        reached: Operations that may be in it.
    """

    content: bytes
    durable: int
    reached: int


@dataclass
class Recording:
    """What was done to a file that had `initial` in it."""

    initial: bytes = b""
    operations: list[Operation] = field(default_factory=list)

    def states(self, seed: int = 1, *, random_choices: int = 8) -> Iterator[State]:
        """Yield what a disk may hold after a power loss: what was flushed, and some of what came after it.

        Of the writes since the last flush: every prefix, all but each one, each one alone, each one torn at a sector,
        all of them torn, and random choices. Two writes to the same bytes keep their order, as they do in a page cache.
        """
        chance = random.Random(seed)
        durable: list[Operation] = []
        position = 0
        for pending in self._epochs():
            reached = position + len(pending)
            choices = [pending[:count] for count in range(len(pending) + 1)]
            choices += [pending[:at] + pending[at + 1 :] for at in range(len(pending))]
            choices += [[one] for one in pending]
            choices += [[*pending[:at], _torn(pending[at], chance)] for at in range(len(pending))]
            choices.append([_torn(one, chance) for one in pending])
            choices += [
                [one for one in pending if chance.random() < 0.5] for _ in range(random_choices)
            ]
            for choice in choices:
                yield State(self._apply(durable + choice), position, reached)
            durable += pending
            position = reached + 1
        yield State(self._apply(durable), position, position)

    def last_states(self, chance: random.Random) -> list[bytes]:
        """Return some of what a disk may hold in the end: what was flushed, with nothing, all or some of the rest."""
        *flushed, pending = self._epochs()
        durable = [one for epoch in flushed for one in epoch]
        choices = [[], pending, [_torn(one, chance) for one in pending]]
        choices += [[one for one in pending if chance.random() < 0.5] for _ in range(2)]
        choices += [pending[: len(pending) // 2], pending[len(pending) // 2 :]]
        return [self._apply(durable + choice) for choice in (choices if pending else [[]])]

    def _epochs(self) -> Iterator[list[Operation]]:
        pending: list[Operation] = []
        for operation in self.operations:
            if operation.offset < 0:
                yield pending
                pending = []
            else:
                pending.append(operation)
        yield pending

    def _apply(self, operations: list[Operation]) -> bytes:
        content = bytearray(self.initial)
        for one in operations:
            if one.data is None:
                del content[one.offset :]
                content.extend(bytes(one.offset - len(content)))
            elif one.data:
                content.extend(bytes(max(0, one.offset + len(one.data) - len(content))))
                content[one.offset : one.offset + len(one.data)] = one.data
        return bytes(content)


class RecordedDevice(MemoryDevice):
    """A file in memory that records what is done to it; may grow."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.recording = Recording(bytes(content))

    def write(self, offset: int, data: memoryview | bytes) -> None:
        super().write(offset, data)
        self.recording.operations.append(Operation(offset, bytes(data)))

    def zero(self, offset: int, length: int) -> None:
        super().zero(offset, length)
        self.recording.operations.append(Operation(offset, bytes(length)))

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self.recording.operations.append(Operation(size))

    def append(self, offset: int, data: bytes) -> None:
        MemoryDevice.truncate(self, offset + len(data))
        self.write(offset, data)

    def flush(self) -> None:
        super().flush()
        self.recording.operations.append(Operation(-1))


def _torn(operation: Operation, chance: random.Random) -> Operation:
    """Cut a write where a sector of the disk begins."""
    if not operation.data:
        return operation
    first, end = operation.offset // SECTOR, operation.offset + len(operation.data)
    cut = max(chance.randrange(first, -(-end // SECTOR)) * SECTOR, operation.offset)
    return Operation(operation.offset, operation.data[: cut - operation.offset])
