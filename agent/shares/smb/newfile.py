"""SMB new file: a file on a share that appears whole or not at all, written from any number of threads, through
restarts of the server. Named NAME.part-JOB until it is committed.

Acknowledged is not durable: the server may lose its power. So what it acknowledged since the last FLUSH is read back
and compared when a connection was lost; what it had not acknowledged is sent again.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from isal import isal_zlib
from smbprotocol.exceptions import SMBResponseException

from agent.errors import AgentError
from agent.shares.base import FileIdentity
from agent.shares.errors import AlreadyThere, FileChanged, WrittenLost
from agent.shares.smb import calls, changes, opening, status, wire
from agent.shares.smb.behind import Again, Piece, WriteBehind
from agent.shares.smb.link import Link
from agent.shares.smb.links import Links
from agent.shares.smb.opening import Begin
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.reader import read_range
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.untyped import LibOpen
from agent.shares.smb.window import Depth
from imaging.errors import DeviceClosed
from imaging.output import GivenUp
from imaging.units import MiB

PART = ".part-"
"""Between the name of a file and that of the job that is writing it."""

FLUSH_EVERY = 256 * MiB
"""Bytes after which the server is asked to make them durable: what has to be read back after an outage at most."""

WRITES_QUEUED = 1.5
"""WRITEs that wait at the server: each of them costs us memory."""

T = TypeVar("T")


class SmbNewFile(GivenUp):
    """A file being written (`imaging.output.OutputFile`). Thread-safe.

    As a context manager it is given up at the end unless it was committed.

    Attributes:
        path: What it will be called, below the share.
        journal_path: On this machine, for whoever keeps a journal of it.
    """

    def __init__(
        self,
        links: Links,
        path: str,
        label: str,
        *,
        job: str,
        policy: SmbPolicy,
        journal: Path,
        replace: bool = False,
        keep: bool = False,
    ) -> None:
        """Begin the file.

        Args:
            links: A connection of its own.
            path: Below the share, normalised.
            label: How messages call it.
            job: Who writes it: a name that no other writer has.
            policy: How much is in flight.
            journal: Becomes `journal_path`.
            replace: Whether a file of that name may be there.
            keep: What this job has written before stays, and stays if it is not committed.

        Raises:
            AlreadyThere: `path` is there and may not be replaced.
            AgentError: The server's word.
        """
        self.path = PurePosixPath(path)
        self.journal_path = journal
        self._links, self._label = links, label
        self._name, self._part = path, f"{path}{PART}{job}"
        self._replace, self._keep = replace, keep
        self._chunk = policy.write_chunk
        self._behind = WriteBehind(
            Depth(*policy.write_depth, most_queued=WRITES_QUEUED), self._chunk
        )
        self._binding = threading.Lock()
        self._handle: LibOpen = None
        self._link: Link | None = None
        self._lost: WrittenLost | None = None
        self._state = "new"
        self._inode = self._size = 0
        if not keep:
            journal.unlink(missing_ok=True)  # It must never speak of what is not in the file.
        try:
            self._run(self._begin, "beginning")
        except BaseException:
            links.close()
            raise
        self._state = "open"

    # --- writing ----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the file as it is now."""
        return self._size

    @property
    def inode(self) -> int:
        """The file system's number of the file, which tells it from another one of its name."""
        return self._inode

    @property
    def bytes_written(self) -> int:
        """By all writes so far that the server acknowledged."""
        return self._behind.written

    @property
    def sent_again(self) -> int:
        """Bytes that had to be sent once more because a connection was lost."""
        return self._behind.sent_again

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset`; durable only after `flush`. The server's errors may come with a later call.

        Raises:
            ShareFull: There is no room. Everything is kept; after room was made a later call goes on.
            WrittenLost: The server lost what it had acknowledged.
        """
        self._require_open()
        view = memoryview(data).cast("B")
        if not view:
            return
        if self._behind.overlaps(offset, len(view)) or self._behind.unflushed >= FLUSH_EVERY:
            self.flush()
        for start in range(0, len(view), self._chunk):  # Piece by piece: what is gathered is held.
            self._launch(self._behind.gather(offset + start, view[start : start + self._chunk]))
        with self._binding:
            self._size = max(self._size, offset + len(view))

    def _launch(self, pieces: list[Piece]) -> None:
        try:
            for piece in pieces:

                def launch(link: Link, handle: LibOpen, piece: Piece = piece) -> None:
                    self._behind.launch(link, handle.file_id, piece)

                self._run(launch, f"writing at {piece.offset}")
        except BaseException:
            self._behind.keep(pieces)  # Or a later flush would succeed without them.
            raise

    def truncate(self, size: int) -> None:
        """Make the file this long; what was never written is a hole, where the server has holes."""
        self._require_open()

        def cut(link: Link, handle: LibOpen) -> None:
            changes.set_size(link, handle, size)

        self.flush()
        self._run(cut, f"setting the size to {size}")
        self._size = size

    def flush(self) -> None:
        """Make everything written so far survive power loss, if the server does what it says."""
        self._require_open()
        self._launch(self._behind.gathered())
        upto = self._behind.mark()

        def flush(link: Link, handle: LibOpen) -> None:
            self._behind.drain(link, upto)
            ticket = Ticket(wire.FLUSH)
            link.connection.post(wire.ask_flush(handle.file_id), ticket)
            link.connection.collect(ticket)

        self._run(flush, "flushing")
        self._behind.flushed(upto)

    # --- the end ----------------------------------------------------------------------------------

    def commit(self) -> None:
        """Flush and give the file its name; durable when this returns.

        Raises:
            AlreadyThere: Somebody made a file of that name meanwhile; it is left alone.
        """
        self.flush()
        self._state = "committing"
        self._links.run(self._rename, f"{self._label}: naming it")
        self._state = "committed"
        self.journal_path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give it up: what was written is deleted, unless it is to be kept. May be called twice, and after `commit`."""
        if self._state in {"open", "committing"} and not self._keep:
            self._state = "given up"
            # Tried once: a server that is away has been waited for. `share ls` shows it; the next run empties it.
            with contextlib.suppress(AgentError):
                self._links.once(self._delete, f"{self._label}: deleting what was written")
        self._state = "closed" if self._state != "committed" else self._state
        self._links.close()

    def _rename(self, link: Link) -> None:
        """Rename the part; a link lost in the middle may have left either name."""
        self._let_go()
        try:
            handle = opening.open_for_rename(link, self._part)
        except SMBResponseException as err:
            if err.status in status.NOT_THERE and self._is_ours(link):
                return
            raise
        try:
            changes.rename(link, handle, self._name, replace=self._replace)
            _make_sparse(
                link, handle
            )  # Again: a rename makes Samba 4.17 forget it, and call holes data.
            ticket = Ticket(wire.FLUSH)  # Of the name: journals of file systems go with the file's.
            link.connection.post(wire.ask_flush(handle.file_id), ticket)
            link.connection.collect(ticket)
        except SMBResponseException as err:
            if err.status == status.NAME_COLLISION:
                raise self._exists() from err
            raise
        finally:
            opening.close(link, handle)

    def _is_ours(self, link: Link) -> bool:
        """Whether the file that has our name is the one that we wrote."""
        handle = opening.open_attributes(link, self._name)
        try:
            return self._inode != 0 and calls.query_identity(link, handle).file_id == self._inode
        finally:
            opening.close(link, handle)

    def _delete(self, link: Link) -> None:
        self._let_go()
        try:
            handle = opening.open_for_rename(link, self._part)
        except SMBResponseException as err:
            if err.status in status.NOT_THERE:
                return
            raise
        try:
            changes.delete(link, handle)
        finally:
            opening.close(link, handle)

    # --- the handle -------------------------------------------------------------------------------

    def _run(self, operation: Callable[[Link, LibOpen], T], doing: str) -> T:
        """Do something with the open file; on a new link open it anew first, and send again what was lost."""

        def bound(link: Link) -> T:
            while True:
                try:
                    return operation(link, self._bind(link))
                except Again:
                    continue

        return self._links.run(bound, f"{self._label}: {doing}")

    def _bind(self, link: Link) -> LibOpen:
        """Return the open file on this link, everything that was lost sent again."""
        with self._binding:
            if self._lost is not None:
                raise WrittenLost(str(self._lost), **self._lost.fields)
            if self._link is not link:
                self._let_go()
                handle = self._open(link)
                self._handle, self._link = handle, link
            self._behind.resend(link, self._handle.file_id)
            return self._handle

    def _open(self, link: Link) -> LibOpen:
        """Open the part: at first what this job left, or a new one; later the same again, nothing of it missing."""
        if self._state == "new":
            self._require_free(link)
            begin = Begin.KEEP if self._keep else Begin.EMPTY
            return opening.open_part(link, self._part, begin)
        handle = opening.open_part(link, self._part, Begin.EXISTING)
        try:
            self._require_same(calls.query_identity(link, handle), link, handle)
            self._read_back(link, handle)
        except BaseException:
            opening.close(link, handle)
            raise
        return handle

    def _require_same(self, now: FileIdentity, link: Link, handle: LibOpen) -> None:
        """Refuse another file of the part's name; set the size again, which a server without power may have lost."""
        if now.file_id != self._inode:
            raise FileChanged(
                f"{self._label}: {self._part} is another file than the one that was being written",
                path=self._part,
            )
        if now.size < self._size:
            changes.set_size(link, handle, self._size)

    def _begin(self, link: Link, handle: LibOpen) -> None:
        now = calls.query_identity(link, handle)
        self._inode, self._size = now.file_id, now.size
        _make_sparse(link, handle)

    def _read_back(self, link: Link, handle: LibOpen) -> None:
        """Compare what was acknowledged and not flushed with what the server has now."""
        for one in self._behind.acknowledged():
            buffer = memoryview(bytearray(one.length))
            read_range(link, handle.file_id, one.offset, buffer)
            if isal_zlib.crc32(buffer) != one.checksum:
                self._lost = WrittenLost(
                    f"{self._label}: the server has lost what it had acknowledged at {one.offset}",
                    offset=one.offset,
                    length=one.length,
                )
                raise self._lost

    def _require_free(self, link: Link) -> None:
        if self._replace:
            return
        try:
            opening.close(link, opening.open_attributes(link, self._name))
        except SMBResponseException as err:
            if err.status in status.NOT_THERE:
                return
            raise
        raise self._exists()

    def _let_go(self) -> None:
        handle, link = self._handle, self._link
        self._handle = self._link = None
        if link is not None:
            opening.close(link, handle)

    def _require_open(self) -> None:
        if self._state != "open":
            raise DeviceClosed(f"{self._label} is {self._state}", path=self._name)

    def _exists(self) -> AlreadyThere:
        return AlreadyThere(f"{self._label}: is there already", path=self._name)


def _make_sparse(link: Link, handle: LibOpen) -> None:
    """Let a file have holes, if the server has them."""
    try:
        changes.set_sparse(link, handle)
    except SMBResponseException as err:
        if err.status not in status.CANNOT:
            raise
