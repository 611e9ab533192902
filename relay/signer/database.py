"""The signer's SQLite file: one connection in one thread, group commit. Knows no table's meaning.

WAL and synchronous=FULL: what `write` has returned from survives a power cut. Work that arrives while a
commit is being fsynced shares the next one; each piece runs in its own savepoint, so that a failing
one takes no other with it.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from relay.signer.errors import Unavailable
from relay.signer.schema import migrate

T = TypeVar("T")

MAX_BATCH = 64
"""Pieces of work that share one fsync."""
MAX_WAITING = 10_000

_Work: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], "Future[Any]"]


class Database:
    """The one door to the signer's state. Methods belong to the event loop, work runs in the thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[_Work | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._serve, name="signer-db", daemon=True)
        self._opened: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._closed = False

    async def open(self) -> None:
        """Open or create the file and its tables.

        Raises:
            sqlite3.Error, OSError: The file cannot be opened or is no database.
            BadConfig: It was written by a newer release.
        """
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction and return its result once that is durable. See `submit`."""
        return await self.submit(work)

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queue `work` as the next transaction; the future ends once it is durable.

        `work` must only touch the connection: it may run together with others in one commit. If it raises,
        its own changes are undone and the error comes out of the future. What is submitted first runs first.
        A cancelled future does not undo what began.

        Raises:
            Unavailable: The signer stops, or the database does not keep up.
        """
        if self._closed:
            raise Unavailable("the signer stops")
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((work, future))
        except queue.Full:
            raise Unavailable("the signer's database does not keep up") from None
        return asyncio.wrap_future(future)

    async def close(self) -> None:
        """Finish what was queued and close the file."""
        self._closed = True
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.wrap_future(self._ended)

    def _serve(self) -> None:
        try:
            conn = _connect(self._path)
        except Exception as err:  # noqa: BLE001  (handed to whoever opens)
            self._opened.set_exception(err)
            return
        self._opened.set_result(None)
        while (batch := self._next_batch()) is not None:
            _run_batch(conn, batch)
        conn.close()
        self._ended.set_result(None)

    def _next_batch(self) -> list[_Work] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._queue.put(None)
                break
            batch.append(more)
        return batch


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        path.touch(mode=0o600)
    conn = sqlite3.connect(path, isolation_level=None)
    conn.row_factory = sqlite3.Row
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=5000",
        "trusted_schema=OFF",
    ):
        conn.execute(f"PRAGMA {pragma}")
    migrate(conn)
    return conn


def _run_batch(conn: sqlite3.Connection, batch: list[_Work]) -> None:
    wanted = [item for item in batch if item[1].set_running_or_notify_cancel()]
    try:
        conn.execute("BEGIN IMMEDIATE")
        outcomes = [_run_one(conn, work) for work, _ in wanted]
        conn.execute("COMMIT")
    except sqlite3.Error as err:  # disk full, I/O error: nothing of the batch counts
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        for _, future in wanted:
            future.set_exception(err)
        return
    for (_, future), (result, error) in zip(wanted, outcomes, strict=True):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _run_one(
    conn: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]
) -> tuple[Any, Exception | None]:
    conn.execute("SAVEPOINT work")
    try:
        result = work(conn)
    except Exception as err:  # handed to whoever asked
        if not conn.in_transaction:
            # SQLite rolled everything back by itself (disk full): the whole batch is void.
            raise sqlite3.OperationalError("the transaction was rolled back") from err
        conn.execute("ROLLBACK TO work")
        conn.execute("RELEASE work")
        return None, err
    conn.execute("RELEASE work")
    return result, None
