"""What a check of an image found, as values, and the bookkeeping of file space; opens and reads nothing.

The formats look (`imaging.formats.*_check`), `imaging.formats.check_image` puts the report together. Nothing is
repaired.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

_MAX_OF_A_CODE = 20
"""Findings of one code that are listed one by one; a damaged table would list a million."""
_MAX_UNITS = 1 << 24


class Severity(Enum):
    """What a finding means for whoever keeps the image."""

    ERROR = "error"
    """Something is wrong in the file, though the disk can be read."""
    WARNING = "warning"
    """Nothing is wrong, but other programs may refuse it, read it otherwise, or it wastes space."""
    NOTE = "note"
    """Worth knowing; the image is clean."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        code: Stable name ("check.copy-damaged"); scripts match on it.
        severity: Whether the image is still clean.
        message: A sentence that says what, where, and what was expected.
        offset: In the image file; None where the finding has no place.
        length: Bytes of the file that it is about; 0 where that means nothing.
        repairable: Whether a repair is provably safe: it changes no byte of the disk and has nothing to guess.
    """

    code: str
    severity: Severity
    message: str
    offset: int | None = None
    length: int = 0
    repairable: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of one check; `findings` are in the order of the file's structures."""

    format: str
    subformat: str
    virtual_size: int
    file_size: int
    parent: str | None
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)


def bounded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Pass the first findings of each code on; of the rest one line says how many they were.

    The line carries the severity of the last one, so leaving findings out never makes an image clean.
    """
    seen: Counter[str] = Counter()
    last: dict[str, Finding] = {}
    for finding in findings:
        seen[finding.code] += 1
        if seen[finding.code] <= _MAX_OF_A_CODE:
            yield finding
        else:
            last[finding.code] = finding
    for code, finding in last.items():
        more = seen[code] - _MAX_OF_A_CODE
        yield Finding(code, finding.severity, f"and {more} more", repairable=finding.repairable)


class UsageMap:
    """Which parts of a file something names; finds those that nothing does.

    Memory: one byte for each unit, at most 16 MiB: units have 512 bytes, of files over 8 GiB more (a log can say that
    its file has any length). A unit counts as used if a byte of it is, so what it calls unused is so for certain.
    """

    def __init__(self, file_size: int) -> None:
        unit = 512
        while file_size > unit * _MAX_UNITS:
            unit *= 2
        self._unit = unit
        self._size = file_size
        self._used = bytearray(-(-file_size // unit))

    def add(self, offset: int, length: int) -> None:
        """Mark a range as used; what lies behind the file's end is not counted."""
        first, end = offset // self._unit, min(-(-(offset + length) // self._unit), len(self._used))
        if first < end:
            self._used[first:end] = b"\1" * (end - first)

    def unused(self, least: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of the unused ranges of at least so many bytes, in order."""
        begin = self._used.find(0)
        while begin >= 0:
            end = self._used.find(1, begin)
            end = len(self._used) if end < 0 else end
            offset = begin * self._unit
            length = min(end * self._unit, self._size) - offset
            if length >= least:
                yield offset, length
            begin = self._used.find(0, end)
