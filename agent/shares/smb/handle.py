"""SMB handle: one path open for reading over one connection, opened anew when the connection was; always the same
version of the file, or an error.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent.shares.base import FileIdentity
from agent.shares.identity import require_unchanged
from agent.shares.smb import calls, opening
from agent.shares.smb.link import Link
from agent.shares.smb.links import Links
from agent.shares.smb.untyped import LibOpen
from imaging.errors import DeviceClosed


class ReadHandle:
    """A file opened for reading, lazily. Thread-safe.

    Attributes:
        links: The connection that it is open over; the share owns it.
        active: Reads that are under way.
    """

    def __init__(self, links: Links, path: str, label: str) -> None:
        """Prepare; no I/O.

        Args:
            links: The connection.
            path: Below the share, normalised.
            label: How messages call the file.
        """
        self.links = links
        self.active = 0
        self._path, self._label = path, label
        self._idle = threading.Condition()
        self._handle: LibOpen = None
        self._link: Link | None = None
        self._closed = False

    @contextmanager
    def use(self, link: Link, expected: FileIdentity) -> Iterator[LibOpen]:
        """Lend the open handle on this link; a new link needs a new one, on the expected version of the file."""
        with self._idle:
            self.require_open()
            if self._link is not link:
                require_unchanged(self._label, expected, self._exchange(link, expected))
            handle = self._handle
            self.active += 1
        try:
            yield handle
        finally:
            with self._idle:
                self.active -= 1
                self._idle.notify_all()

    def reopen(self, link: Link, expected: FileIdentity | None) -> FileIdentity:
        """Open the path anew as soon as nobody reads, and tell what is there now."""
        with self._idle:
            self._idle.wait_for(lambda: self.active == 0)
            self.require_open()
            return self._exchange(link, expected)

    @contextmanager
    def kept_closed(self) -> Iterator[None]:
        """Close it as soon as nobody reads, and let nobody open it meanwhile; the next use opens it anew."""
        with self._idle:
            self._idle.wait_for(lambda: self.active == 0)
            self._let_go()
            yield

    def close(self) -> None:
        """Close it for good; the share stays connected."""
        with self._idle:
            self._closed = True
            self._let_go()

    def require_open(self) -> None:
        """Raise DeviceClosed after `close`."""
        if self._closed:
            raise DeviceClosed(f"{self._label} is closed", path=self._label)

    def _exchange(self, link: Link, expected: FileIdentity | None) -> FileIdentity:
        """Open the path on this link and tell what is there; only the expected version becomes our handle."""
        self._let_go()
        handle = opening.open_file(link, self._path)
        try:
            now = calls.query_identity(link, handle)
            if expected is None or now == expected:
                self._handle, self._link = handle, link
            return now
        finally:
            if self._handle is not handle:
                opening.close(link, handle)

    def _let_go(self) -> None:
        """Give up the handle, if there is one."""
        handle, link = self._handle, self._link
        self._handle = self._link = None
        if link is not None:
            opening.close(link, handle)
