"""What a disk may hold after a power loss: a file that records what is done to it, and every state that may be left."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from imaging.memory import MemoryDevice

SECTOR = 512
"""What a disk writes whole or not at all."""


@dataclass
class Operation:
    """A write, a truncation (data None), or the flush that makes everything before it durable (offset -1)."""

    offset: int
    data: bytes | None = None


@dataclass
class Recording:
    """What was done to a file that had `initial` in it."""

    initial: bytes = b""
    operations: list[Operation] = field(default_factory=list)

    def states(self, seed: int = 1, *, random_choices: int = 8) -> Iterator[bytes]:
        """Yield what a disk may hold after a power loss: all that was flushed, and some of what came after it.

        Of the writes since the last flush: every prefix, all but each one, each one alone, each one torn at a sector,
        and random choices; in random order. A truncation comes with or without what was written behind it.
        """
        chance = random.Random(seed)
        durable: list[Operation] = []
        for pending in self._epochs():
            choices = [pending[:count] for count in range(len(pending) + 1)]
            choices += [pending[:at] + pending[at + 1 :] for at in range(len(pending))]
            choices += [[one] for one in pending]
            choices += [[*pending[:at], _torn(pending[at], chance)] for at in range(len(pending))]
            choices += [
                [one for one in pending if chance.random() < 0.5] for _ in range(random_choices)
            ]
            for choice in choices:
                yield self._apply(durable + choice)
                shuffled = list(choice)
                chance.shuffle(shuffled)
                if not _collide(choice):
                    yield self._apply(durable + shuffled)
            durable += pending
        yield self._apply(durable)

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

    def flush(self) -> None:
        super().flush()
        self.recording.operations.append(Operation(-1))


def _torn(operation: Operation, chance: random.Random) -> Operation:
    if not operation.data:
        return operation
    sectors = -(-len(operation.data) // SECTOR)
    return Operation(operation.offset, operation.data[: chance.randrange(sectors) * SECTOR])


def _collide(operations: list[Operation]) -> bool:
    """Tell whether the order matters to what the disk may hold: then only the given one is played.

    Two writes to the same bytes without a flush between them do not change places in a page cache; and a truncation
    is ordered with what lies behind it.
    """
    if any(one.data is None for one in operations):
        return True
    spans = sorted((one.offset, one.offset + len(one.data or b"")) for one in operations)
    return any(a[1] > b[0] for a, b in itertools.pairwise(spans))
