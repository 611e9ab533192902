"""SMB file: one file of a share as a read-only BlockDevice that outlives lost connections. Knows no formats."""

import threading
from collections.abc import Iterator

from smbprotocol.exceptions import SMBResponseException

from agent.shares.base import FileIdentity
from agent.shares.identity import require_unchanged
from agent.shares.smb import calls, status
from agent.shares.smb.link import Link
from agent.shares.smb.links import Links
from agent.shares.smb.reader import read_range
from agent.shares.smb.translate import WIRE_ERRORS
from agent.shares.smb.untyped import LibOpen
from imaging.errors import DeviceClosed, OutOfRange, ReadOnlyDevice
from imaging.extent import Extent, Kind, clip, coalesce
from imaging.units import GiB, MiB

EXTENT_WINDOW = 1 * GiB
"""Range of one QUERY_ALLOCATED_RANGES; its answer is bounded to 64 KiB, 4096 ranges."""

SMALLEST_WINDOW = 1 * MiB
"""Where even this has too many ranges, reading it is cheaper than asking on."""

_TOO_MANY = frozenset([status.BUFFER_OVERFLOW, status.BUFFER_TOO_SMALL])
"""Windows answers the first, Samba 4.17 the second (its bug 15699)."""

_CANNOT = frozenset([status.INVALID_DEVICE_REQUEST, status.NOT_SUPPORTED, status.INVALID_PARAMETER])


class SmbFile:
    """A file opened for reading; nobody else may write it meanwhile. Thread-safe."""

    def __init__(self, links: Links, path: str, label: str) -> None:
        """Open the file.

        Args:
            links: The share's links; the share owns them.
            path: Below the share, normalised.
            label: How messages call the file.
        """
        self._links = links
        self._path = path
        self._label = label
        self._lock = threading.Lock()
        self._handle: LibOpen = None
        self._link: Link | None = None
        self._closed = False
        self._sparse_known = True
        self._identity: FileIdentity | None = None
        self._first: FileIdentity = links.run(self._open, f"opening {label}")

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened; it cannot change without an error."""
        self._require_open()
        return self._first.size

    def identity(self) -> FileIdentity:
        """Ask the server for the file's identity now."""
        self._require_open()
        return self._links.run(
            lambda link: calls.query_identity(link, self._handle_on(link)),
            f"asking about {self._label}",
        )

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; large reads are split and pipelined."""
        self._require_range(offset, len(buffer))
        if buffer:
            view = buffer.cast("B")
            self._links.run(
                lambda link: read_range(link, self._handle_on(link).file_id, offset, view),
                f"reading {self._label} at {offset}",
            )

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
        """Close the handle; the share stays connected."""
        with self._lock:
            closed, self._closed = self._closed, True
            handle, link = self._handle, self._link
            self._handle = self._link = None
        if not closed and link is not None and link.alive:
            try:
                handle.close()
            except WIRE_ERRORS:
                link.connection.cut()  # The server drops the handle with the connection.

    # --- the handle -------------------------------------------------------------------------------

    def _open(self, link: Link) -> FileIdentity:
        """Open the file on a link and return its identity."""
        self._handle_on(link)
        assert self._identity is not None
        return self._identity

    def _handle_on(self, link: Link) -> LibOpen:
        """Return the open handle on this link; a new link needs a new one, on the same version of the file."""
        with self._lock:
            self._require_open()
            if self._link is not link:
                handle = calls.open_file(link, self._path)
                now = calls.query_identity(link, handle)
                if self._identity is not None:
                    require_unchanged(self._label, self._identity, now)
                self._handle, self._link, self._identity = handle, link, now
            return self._handle

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
        if not self._sparse_known:
            return [(offset, length)]

        def ask(link: Link) -> list[tuple[int, int]] | None:
            try:
                return calls.allocated_ranges(link, self._handle_on(link), offset, length)
            except SMBResponseException as err:
                if err.status in _TOO_MANY:
                    return None
                if err.status in _CANNOT:
                    self._sparse_known = False
                    return [(offset, length)]
                raise

        return self._links.run(ask, f"asking for the extents of {self._label} at {offset}")

    # --- checks -----------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceClosed(f"{self._label} is closed", path=self._label)

    def _require_range(self, offset: int, length: int) -> None:
        self._require_open()
        if offset < 0 or length < 0 or offset + length > self._first.size:
            raise OutOfRange(
                f"{self._label}: {length} bytes at {offset} are outside of {self._first.size}",
                offset=offset,
                length=length,
                size=self._first.size,
            )

    def _read_only(self) -> Exception:
        self._require_open()
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
