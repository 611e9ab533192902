"""Converting small disks in tests, with every write recorded so that a power loss can be played."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

from imaging.convert import TARGETS, Options, convert
from imaging.device import BlockDevice, read_bytes
from imaging.digest import DigestBuilder
from imaging.formats import open_path
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile

OPTIONS = Options(uuid.UUID(int=0x1234), 1_700_000_000)


def sparse_device(size: int, parts: dict[int, bytes]) -> MemoryDevice:
    """Make a device with `parts` (offset -> bytes) and holes elsewhere."""
    device = MemoryDevice(size)
    for offset, data in parts.items():
        device.write(offset, data)
    return device


def write_image(
    source: BlockDevice, path: Path, to: str, *, options: Options = OPTIONS, replace: bool = False
) -> str:
    """Convert a whole disk into a file and return its root."""
    digest = DigestBuilder(source.size)
    options = replace_fields(options, extents=source.extents(0, source.size))
    size = TARGETS[to].padded_size(source.size, sector_size=options.sector_size)
    with NewFile(path, replace=replace) as file:
        convert(source, TARGETS[to].make(file, size, options), digest=digest)
        file.commit()
    return digest.root()


def read_image(path: Path, to: str) -> bytes:
    """Return the content of the disk inside a small image."""
    with open_path(path, format=to.partition(":")[0]) as image:
        return read_bytes(image, 0, image.size)


@dataclass
class Operation:
    """A write, a truncation (data None), or the flush that makes everything before it durable (offset -1)."""

    offset: int
    data: bytes | None = None


class RecordedFile(NewFile):
    """A new file that remembers all that was done to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.operations: list[Operation] = []

    def write(self, offset: int, data: memoryview | bytes) -> None:
        super().write(offset, data)
        self.operations.append(Operation(offset, bytes(data)))

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self.operations.append(Operation(size))

    def flush(self) -> None:
        super().flush()
        self.operations.append(Operation(-1))


def states_after_power_loss(operations: list[Operation], seed: int = 1) -> Iterator[bytes]:
    """Yield what a disk may hold after a power loss: all that was flushed, and some of what came after it.

    Of the writes since the last flush: every prefix, all but each one, each one cut in half, and random choices.
    """
    chance = random.Random(seed)
    durable: list[Operation] = []
    for pending in _epochs(operations):
        choices = [pending[:count] for count in range(len(pending) + 1)]
        choices += [pending[:at] + pending[at + 1 :] for at in range(len(pending))]
        choices += [[*pending[:at], _half(pending[at])] for at in range(len(pending))]
        choices += [[one for one in pending if chance.random() < 0.5] for _ in range(8)]
        for choice in choices:
            chance.shuffle(choice)
            yield _apply(durable + choice)
        durable += pending
    yield _apply(durable)


def _epochs(operations: list[Operation]) -> Iterator[list[Operation]]:
    pending: list[Operation] = []
    for operation in operations:
        if operation.offset < 0:
            yield pending
            pending = []
        else:
            pending.append(operation)
    yield pending


def _half(operation: Operation) -> Operation:
    if operation.data is None:
        return operation
    return Operation(operation.offset, operation.data[: len(operation.data) // 1024 * 512])


def _apply(operations: list[Operation]) -> bytes:
    size = max(
        (one.offset + len(one.data or b"") for one in operations if one.data != b""), default=0
    )
    content = bytearray(size)
    for one in operations:
        if one.data:
            content[one.offset : one.offset + len(one.data)] = one.data
    return bytes(content)
