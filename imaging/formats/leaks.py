"""Space of an image file that is allocated but named by nothing; knows no format."""

from collections.abc import Iterator

from imaging.check import Finding, Severity, UsageMap
from imaging.device import BlockDevice
from imaging.extent import data_bytes
from imaging.units import KiB, round_up

_PAGE = 4 * KiB
"""File systems allocate whole pages: the first and the last one of a range may be its neighbour's."""


def find_leaks(file: BlockDevice, usage: UsageMap, *, least: int) -> Iterator[Finding]:
    """Yield the unused ranges of at least `least` bytes that hold data; holes of the file cost nothing.

    Repairing one (as a hole) is not called safe: other versions of a format may keep there what we do not know.
    """
    for offset, length in usage.unused(least):
        held = _held(file, offset, length)
        if held:
            yield Finding(
                "check.leaked-space",
                Severity.WARNING,
                f"{held} bytes at file offset {offset} are allocated but belong to nothing",
                offset,
                length,
            )


def _held(file: BlockDevice, offset: int, length: int) -> int:
    """Return how many bytes of a range are allocated for certain."""
    if length >= 4 * _PAGE:
        end = (offset + length) // _PAGE * _PAGE
        offset = round_up(offset, _PAGE)
        length = end - offset
    return data_bytes(file.extents(offset, length))
