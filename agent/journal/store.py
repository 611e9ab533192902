"""Journal: opens the agent's durable memory, guards it against a second agent, hands out its parts. Has no rules."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import AgentError
from agent.journal.errors import JournalInUse
from agent.journal.job import JobJournal
from agent.journal.jobs import Job
from agent.journal.state import load_state, store_state
from agent.journal.writer import Transaction, Writer
from protocol.inbox import InboxState, begin
from protocol.messages import Record

T = TypeVar("T")
FILE = "journal.sqlite3"
LOCK = "journal.lock"
JOURNAL_ID_BYTES = 16


class Journal:
    """The journal of one state folder. `open`, use from one event loop, `close`."""

    def __init__(self, folder: Path, *, reserve: int) -> None:
        """Open or make it.

        Args:
            folder: The agent's state folder.
            reserve: Bytes of disk to hold back for refusals, cancels and results.

        Raises:
            JournalInUse, JournalUnusable, JournalTooNew.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / FILE
        self._lock = _lock(folder / LOCK)
        _close_to_others(folder)
        try:
            self.writer = Writer(self.path, reserve=reserve)
        except AgentError:
            os.close(self._lock)
            raise
        self.writer.start()

    @property
    def full(self) -> bool:
        """Whether the disk is so full that only refusals, cancels and results are written."""
        return self.writer.full

    async def commit(self, run: Transaction[T], *, essential: bool = False) -> T:
        """Run one function in a transaction; see `Writer.commit`."""
        return await self.writer.commit(run, essential=essential)

    def scrub(self) -> None:
        """See `Writer.scrub`."""
        self.writer.scrub()

    async def begin(self, record: Record, payload: bytes) -> InboxState:
        """Return the order state; a new journal begins with the appliance's record."""

        def run(conn: sqlite3.Connection) -> InboxState:
            state = load_state(conn)
            if state is None:
                state = begin(record, payload, journal=os.urandom(JOURNAL_ID_BYTES))
                store_state(conn, state)
            return state

        return await self.commit(run)

    async def job(self, job: Job, *, now_ms: Callable[[], int]) -> JobJournal:
        """Return one job's part, with what earlier attempts left loaded."""
        part = JobJournal(
            self.writer, self.path, digest=job.digest, origin=job.origin, now_ms=now_ms
        )
        await part.open()
        return part

    def close(self) -> None:
        """Write what is queued and let go. Blocks for one batch."""
        self.writer.close()
        os.close(self._lock)


def _close_to_others(folder: Path) -> None:
    """Make the file before SQLite would, with its own mode: the WAL and its index take the file's mode over."""
    with contextlib.suppress(OSError):  # whatever is wrong here, opening it says better
        os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for path in folder.glob(f"{FILE}*"):  # an earlier release left them to the umask
            path.chmod(0o600)


def _lock(path: Path) -> int:
    """Hold a lock that the kernel drops with the process, however it dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(handle)
        msg = f"another agent holds {path}"
        raise JournalInUse(msg, path=str(path)) from err
    return handle
