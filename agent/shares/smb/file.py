"""SMB file: one file of a share as a read-only BlockDevice that outlives lost connections. Knows no formats."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter

from smbprotocol.exceptions import SMBResponseException

from agent.shares.base import FileIdentity
from agent.shares.smb import calls, status
from agent.shares.smb.handle import ReadHandle
from agent.shares.smb.link import Link
from agent.shares.smb.links import Links
from agent.shares.smb.reader import read_range
from imaging.errors import OutOfRange, ReadOnlyDevice
from imaging.extent import Extent, Kind, clip, coalesce
from imaging.units import GiB, MiB

EXTENT_WINDOW = 1 * GiB
"""Range of one QUERY_ALLOCATED_RANGES; its answer is bounded to 64 KiB, 4096 ranges."""

SMALLEST_WINDOW = 1 * MiB
"""Where even this has too many ranges, reading it is cheaper than asking on."""

_TOO_MANY = frozenset([status.BUFFER_OVERFLOW, status.BUFFER_TOO_SMALL])
"""Windows answers the first, Samba 4.17 the second (its bug 15699)."""


class SmbFile:
    """A file opened for reading; nobody else may write it meanwhile. Thread-safe."""

    def __init__(self, lanes: Sequence[Links], path: str, label: str) -> None:
        """Open the file.

        Args:
            lanes: The share's connections; the share owns them. The first one is asked about the file.
            path: Below the share, normalised.
            label: How messages call the file.
        """
        self._label = label
        self._handles = [ReadHandle(links, path, label) for links in lanes]
        self._main = self._handles[0]
        self._tells_ranges = True
        self._first = self._main.links.run(
            lambda link: self._main.reopen(link, None), f"opening {label}"
        )

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened; it cannot change without an error."""
        return self._first.size

    def identity(self) -> FileIdentity:
        """Ask the server for the identity of the file that has this path now.

        The file is closed and opened anew for it: Samba answers for a file that anybody has open with the times of
        its opening, whatever happened to it since, and a replaced file only shows under its path.
        """
        self._main.require_open()

        def ask(link: Link) -> FileIdentity:
            with ExitStack() as others:
                for handle in self._handles[1:]:
                    others.enter_context(handle.kept_closed())
                return self._main.reopen(link, self._first)

        return self._main.links.run(ask, f"asking about {self._label}")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; large reads are split and pipelined, reads at the same time go over several connections."""
        self._require_range(offset, len(buffer))
        if not buffer:
            return
        view = buffer.cast("B")
        handle = min(self._handles, key=attrgetter("active"))

        def read(link: Link) -> None:
            with handle.use(link, self._first) as opened:
                read_range(link, opened.file_id, offset, view)

        handle.links.run(read, f"reading {self._label} at {offset}")

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe a window by the server's allocation, one GiB a question; DATA where it cannot say."""
        self._require_range(offset, length)
        return coalesce(self._windows(offset, length))

    def write(self, offset: int, data: memoryview | bytes) -> None:  # noqa: ARG002
        """Refuse."""
        raise self._read_only()

    def zero(self, offset: int, length: int) -> None:  # noqa: ARG002
        """Refuse."""
        raise self._read_only()

    def flush(self) -> None:
        """Refuse."""
        raise self._read_only()

    def close(self) -> None:
        """Close the handles; the share stays connected."""
        for handle in self._handles:
            handle.close()

    # --- extents ----------------------------------------------------------------------------------

    def _windows(self, offset: int, length: int) -> Iterator[Extent]:
        """Ask window after window; halve where the answer does not fit."""
        position, stop, window = offset, offset + length, EXTENT_WINDOW
        while position < stop:
            count = min(window, stop - position)
            ranges = self._ranges(position, count)
            if ranges is not None:
                yield from _describe(position, count, ranges)
            elif count > SMALLEST_WINDOW:
                window = max(count // 2, SMALLEST_WINDOW)
                continue
            else:
                yield Extent(position, count, Kind.DATA)
            position += count
            window = min(window * 2, EXTENT_WINDOW)

    def _ranges(self, offset: int, length: int) -> list[tuple[int, int]] | None:
        """Return the allocated ranges of a window; None if there are too many for one answer."""
        if not self._tells_ranges:
            return [(offset, length)]

        def ask(link: Link) -> list[tuple[int, int]] | None:
            try:
                with self._main.use(link, self._first) as handle:
                    return calls.allocated_ranges(link, handle, offset, length)
            except SMBResponseException as err:
                if err.status in _TOO_MANY:
                    return None
                if err.status in status.CANNOT:
                    self._tells_ranges = False
                    return [(offset, length)]
                raise

        return self._main.links.run(ask, f"asking for the extents of {self._label} at {offset}")

    # --- checks -----------------------------------------------------------------------------------

    def _require_range(self, offset: int, length: int) -> None:
        self._main.require_open()
        if offset < 0 or length < 0 or offset + length > self._first.size:
            raise OutOfRange(
                f"{self._label}: {length} bytes at {offset} are outside of {self._first.size}",
                offset=offset,
                length=length,
                size=self._first.size,
            )

    def _read_only(self) -> Exception:
        self._main.require_open()
        return ReadOnlyDevice(f"{self._label} is open for reading", path=self._label)


def _describe(offset: int, length: int, ranges: list[tuple[int, int]]) -> Iterator[Extent]:
    """Turn allocated ranges into extents without gaps; whatever is odd in them becomes data, never a hole."""
    position = offset
    data = (Extent(start, count, Kind.DATA) for start, count in sorted(ranges) if count > 0)
    for extent in clip(data, offset, length):
        if extent.offset > position:
            yield Extent(position, extent.offset - position, Kind.HOLE)
        start = max(extent.offset, position)
        if extent.end > start:
            yield Extent(start, extent.end - start, Kind.DATA)
        position = max(position, extent.end)
    if position < offset + length:
        yield Extent(position, offset + length - position, Kind.HOLE)
