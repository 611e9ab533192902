"""Converting small disks in tests."""

import uuid
from dataclasses import replace as replace_fields
from pathlib import Path

from imaging.convert import TARGETS, Options, convert
from imaging.device import BlockDevice, read_bytes
from imaging.digest import DigestBuilder
from imaging.formats import open_path
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile
from tests.support.powerloss import Operation, Recording

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


class RecordedFile(NewFile):
    """A new file that remembers all that was done to it."""

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        super().__init__(path, replace=replace)
        self.recording = Recording()

    def write(self, offset: int, data: memoryview | bytes) -> None:
        super().write(offset, data)
        self.recording.operations.append(Operation(offset, bytes(data)))

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self.recording.operations.append(Operation(size))

    def flush(self) -> None:
        super().flush()
        self.recording.operations.append(Operation(-1))
