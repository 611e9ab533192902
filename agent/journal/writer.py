"""Writer: the one thread that writes the journal; what waits together shares one transaction and one fsync.

The event loop never waits for the disk: `commit` hands a function to the thread and awaits its durable return value.
Each function runs in a savepoint of its own, so that one that raises takes only its own writes back.
"""

import asyncio
import queue
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.journal.errors import JournalFull, JournalUnusable
from agent.journal.reserve import Reserve
from agent.journal.schema import open_writer
from imaging.units import MiB

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

MAX_BATCH = 256
"""Functions that share one fsync at most; bounds how long the first of them waits."""

_FULL = 13  # SQLITE_FULL, primary result code
_IOERR = 10  # SQLITE_IOERR


@dataclass(slots=True)
class _Work:
    run: Transaction[Any]
    essential: bool
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Any]"
    value: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        if self.done.done():  # the waiter was cancelled; what it asked for is durable all the same
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.value)


class Writer:
    """Owns the writing connection. Start it, use it from one event loop, close it."""

    def __init__(self, path: Path, *, reserve: int) -> None:
        """Name the journal's file and the bytes to hold back beside it."""
        self._path = path
        self._reserve = Reserve(path.with_name(path.name + ".reserve"), reserve)
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._scrub = False
        self._conn = open_writer(path)
        self.full = not self._reserve.take()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, run: Transaction[T], *, essential: bool = False) -> "asyncio.Future[T]":
        """Queue one function; the future resolves when its writes are durable. Call from the loop.

        Args:
            run: Runs in the writer thread, inside a transaction; must not commit, block or touch the loop.
            essential: May use the reserve of a full disk: refusals, cancels, results.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Work(run, essential, loop, done))
        return done

    async def commit(self, run: Transaction[T], *, essential: bool = False) -> T:
        """Run one function and return its value once it is durable; a cancelled caller does not take it back.

        Raises:
            JournalFull: The disk is full; nothing of `run` was written.
            JournalUnusable: The disk failed; nothing of `run` counts.
        """
        return await self.submit(run, essential=essential)

    def scrub(self) -> None:
        """Ask for the WAL to be emptied after this transaction, so that erased secrets are gone from it too."""
        self._scrub = True

    def close(self) -> None:
        """Write what is queued, stop the thread and close the file. Blocks for one batch."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self._conn.close()

    # --- the writer thread --------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, last = self._take(first)
            self._write(batch)
            for work in batch:
                work.loop.call_soon_threadsafe(work.deliver)
            if last:
                return

    def _take(self, first: _Work) -> tuple[list[_Work], bool]:
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return batch, True
            batch.append(work)
        return batch, False

    def _write(self, batch: list[_Work]) -> None:
        if self.full:
            self.full = not self._reserve.take()
        if not self.full:
            error = self._transaction(batch)
            if error is None:
                return
            if not self._is_full(error):
                self._refuse(batch, self._unusable(error))
                return
        self._reserve.release()
        self.full = True
        self._refuse([work for work in batch if not work.essential], self._no_space())
        essential = [work for work in batch if work.essential]
        error = self._transaction(essential) if essential else None
        if error is not None:
            self._refuse(
                essential, self._no_space() if self._is_full(error) else self._unusable(error)
            )

    def _transaction(self, batch: list[_Work]) -> sqlite3.Error | None:
        conn = self._conn
        try:
            conn.execute("BEGIN IMMEDIATE")
            for work in batch:
                self._one(work)
            conn.execute("COMMIT")
            if self._scrub:
                self._empty_wal()
        except sqlite3.Error as err:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            return err
        return None

    def _one(self, work: _Work) -> None:
        conn = self._conn
        work.error = None
        conn.execute("SAVEPOINT work")
        try:
            work.value = work.run(conn)
        except sqlite3.IntegrityError as err:
            work.error = err
        except sqlite3.Error:
            raise  # the disk, not the function: the whole batch has failed
        except Exception as err:  # noqa: BLE001 - carried to whoever awaits this very function
            work.error = err
        if work.error is not None:
            conn.execute("ROLLBACK TO work")
        conn.execute("RELEASE work")

    def _empty_wal(self) -> None:
        busy, _, _ = self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._scrub = bool(busy)  # a reader holds it: again after the next transaction

    def _is_full(self, error: sqlite3.Error) -> bool:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary == _FULL:
            return True
        return primary == _IOERR and shutil.disk_usage(self._path.parent).free < MiB

    @staticmethod
    def _refuse(batch: list[_Work], error: Exception) -> None:
        for work in batch:
            work.error = error

    def _no_space(self) -> JournalFull:
        msg = f"no space left under {self._path.parent}"
        return JournalFull(msg, path=str(self._path.parent))

    def _unusable(self, error: sqlite3.Error) -> JournalUnusable:
        msg = f"{self._path}: {error}"
        return JournalUnusable(msg, path=str(self._path))
