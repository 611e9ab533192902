"""Check a raw image: it has no metadata, so only its size can be odd."""

from collections.abc import Iterator

from imaging.check import Finding, Severity
from imaging.device import BlockDevice
from imaging.formats.base import DiskImage
from imaging.units import SECTOR_SIZE


def check_raw(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:  # noqa: ARG001  (every checker has one shape)
    """Yield what is doubtful in a raw image that can be opened."""
    rest = file.size % SECTOR_SIZE
    if rest:
        yield Finding(
            "check.size-odd",
            Severity.WARNING,
            f"the file has {file.size} bytes, no multiple of {SECTOR_SIZE}: it was cut, or is no disk",
            file.size - rest,
            rest,
        )
