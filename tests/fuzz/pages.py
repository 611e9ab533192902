"""Files of a fuzz case: sparse, cheap to copy, and devices over them that count the work; knows no format."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from imaging.bounds import require_range
from imaging.errors import FileMissing, ReadOnlyDevice
from imaging.extent import Extent, Kind, clip, coalesce

PAGE = 4096
_NOTHING = bytes(PAGE)


class Violation(AssertionError):
    """The library did what no bytes may make it do."""


class Pages:
    """The bytes of one file; pages that are not there are holes. A copy shares the pages."""

    __slots__ = ("pages", "size")

    def __init__(self, size: int = 0, pages: dict[int, bytes] | None = None) -> None:
        self.size = size
        self.pages: dict[int, bytes] = {} if pages is None else pages

    @classmethod
    def of(cls, content: bytes) -> "Pages":
        """Hold `content`, its pages of zeros as holes."""
        found = cls(len(content))
        for at in range(0, len(content), PAGE):
            part = content[at : at + PAGE]
            if any(part):
                found.pages[at // PAGE] = part.ljust(PAGE, b"\0")
        return found

    @classmethod
    def read(cls, path: Path) -> "Pages":
        """Read a file, zeros as holes."""
        found = cls(path.stat().st_size)
        with path.open("rb") as file:
            number = 0
            while part := file.read(256 * PAGE):
                for at in range(0, len(part), PAGE) if part.count(0) != len(part) else ():
                    page = part[at : at + PAGE]
                    if any(page):
                        found.pages[number + at // PAGE] = page.ljust(PAGE, b"\0")
                number += 256
        return found

    def copy(self) -> "Pages":
        """Return a copy whose changes do not change this one."""
        return Pages(self.size, dict(self.pages))

    def get(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer where the file ends."""
        length = max(0, min(length, self.size - offset))
        first, inside = divmod(offset, PAGE)
        last = (offset + length - 1) // PAGE if length else first - 1
        parts = [self.pages.get(number, _NOTHING) for number in range(first, last + 1)]
        return b"".join(parts)[inside : inside + length]

    def put(self, offset: int, data: bytes) -> None:
        """Change bytes; what lies before the start or behind the end is dropped."""
        data, offset = data[max(0, -offset) :], max(0, offset)
        data = data[: max(0, self.size - offset)]
        done = 0
        while done < len(data):
            number, inside = divmod(offset + done, PAGE)
            count = min(PAGE - inside, len(data) - done)
            page = self.pages.get(number, _NOTHING)
            page = page[:inside] + data[done : done + count] + page[inside + count :]
            self.pages[number] = page
            done += count

    def cut(self, size: int) -> None:
        """Make the file that long; what is added is a hole."""
        if size < self.size:
            number, inside = divmod(size, PAGE)
            self.pages = {at: page for at, page in self.pages.items() if at * PAGE < size}
            if inside and number in self.pages:
                self.pages[number] = self.pages[number][:inside].ljust(PAGE, b"\0")
        self.size = size

    @property
    def stored(self) -> int:
        """Bytes that are no holes."""
        return len(self.pages) * PAGE


Files = dict[str, bytes | Pages]
"""Bare name -> content."""


def laid(size: int, parts: dict[int, bytes]) -> Pages:
    """Return a file with `parts` and holes elsewhere, however long it says it is."""
    file = Pages(size)
    for offset, data in sorted(parts.items()):
        file.put(offset, data)
    return file


@dataclass
class Work:
    """What was asked of all files of a case.

    Attributes:
        most_calls, most_bytes: More are a violation at once, so that a loop that reads does end.
    """

    calls: int = 0
    bytes_read: int = 0
    extents: int = 0
    most_calls: int = 1 << 62
    most_bytes: int = 1 << 62

    def require_end(self) -> None:
        """Raise where there is no end in sight."""
        if self.calls + self.extents > self.most_calls or self.bytes_read > self.most_bytes:
            raise Violation(f"{self.calls} calls for {self.bytes_read} bytes, and no end in sight")

    def since(self, calls: int, bytes_read: int) -> tuple[int, int]:
        """Return calls and bytes since then."""
        return self.calls + self.extents - calls, self.bytes_read - bytes_read


class PageDevice:
    """A read-only device over `Pages`; writing to it is a violation."""

    def __init__(self, pages: Pages, work: Work) -> None:
        self._pages, self._work = pages, work
        self.is_open = True

    @property
    def size(self) -> int:
        return self._pages.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._require(offset, len(buffer))
        self._work.calls += 1
        self._work.bytes_read += len(buffer)
        self._work.require_end()
        buffer[:] = self._pages.get(offset, len(buffer))

    def write(self, offset: int, data: memoryview | bytes) -> None:
        raise Violation(
            f"wrote {len(data)} bytes at {offset} to a file that was opened for reading"
        )

    def zero(self, offset: int, length: int) -> None:
        raise Violation(f"zeroed {length} bytes at {offset} of a file that was opened for reading")

    def truncate(self, size: int) -> None:
        raise Violation(f"made a file {size} bytes long that was opened for reading")

    def flush(self) -> None:
        raise ReadOnlyDevice("for reading only")

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self._require(offset, length)
        self._work.extents += 1
        self._work.require_end()
        return coalesce(clip(self._found(offset, offset + length), offset, length))

    def close(self) -> None:
        self.is_open = False

    def _found(self, position: int, end: int) -> Iterator[Extent]:
        """Walk over the pages that are there, so that a hole of a petabyte is one step."""
        present = self._pages.pages
        first, last = position // PAGE, -(-end // PAGE)
        numbers: Iterator[int] | range
        if last - first > len(present):
            numbers = iter(sorted(number for number in present if first <= number < last))
        else:
            numbers = (number for number in range(first, last) if number in present)
        for number in numbers:
            if number * PAGE > position:
                yield Extent(position, number * PAGE - position, Kind.HOLE)
                position = number * PAGE
            yield Extent(position, (number + 1) * PAGE - position, Kind.DATA)
            position = (number + 1) * PAGE
        if position < end:
            yield Extent(position, end - position, Kind.HOLE)

    def _require(self, offset: int, length: int) -> None:
        if not self.is_open:
            raise Violation("used a file after it was closed")
        require_range(offset, length, self._pages.size)


@dataclass
class WatchedFolder:
    """The files beside the image; only bare names may be asked for, and all must be closed again."""

    files: dict[str, Pages]
    work: Work
    opened: list[PageDevice] = field(default_factory=list)

    def open(self, name: str) -> PageDevice:
        if name != Path(name).name or name in ("", ".", "..") or set(name) & set('/\\:\0*?"<>|'):
            raise Violation(f"asked the folder for {name!r}")
        if name not in self.files:
            raise FileMissing(f"{name}: no such file", path=name)
        self.opened.append(PageDevice(self.files[name], self.work))
        return self.opened[-1]

    @property
    def left_open(self) -> int:
        return sum(device.is_open for device in self.opened)
