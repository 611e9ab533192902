"""JobJournal: one job's part of the journal, as the stage and the pump see it (`agent.journal.base.JobStore`).

Receipts, checkpoints and intents belong to the line of retries (`origin`), so that a retry goes on where the failed
command stopped. Receipts are buffered: durable after at most 1 s or 64 of them, or when `flush` returns.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.errors import Cancelled, Permanent
from agent.journal.base import IntentLike, KnownIntent
from agent.journal.schema import open_reader
from agent.journal.writer import Writer
from protocol.codec import decode_plain, encode

RECEIPTS_EVERY_S = 1.0
RECEIPTS_BATCH = 64
MAX_CHECKPOINT = 64 * 1024
READ_ROWS = 256

Receipt = tuple[int, int, bytes]


class CheckpointTooLarge(Permanent):
    """A stage's checkpoint does not fit: a defect of the stage."""

    code = "journal.checkpoint-too-large"
    exit_code = 70
    fix = "Report this with the support bundle (`imageport bundle`): it is a defect of imageport."


class JobJournal:
    """Bound to one job. Use it from the event loop; only `load` may be iterated in another thread."""

    def __init__(
        self, writer: Writer, path: Path, *, digest: bytes, origin: bytes, now_ms: Callable[[], int]
    ) -> None:
        """Bind to the job; `open` must be awaited before it is handed to a stage."""
        self._writer = writer
        self._path = path
        self._digest = digest
        self._origin = origin
        self._now_ms = now_ms
        self._checkpoint: dict[str, Any] | None = None
        self._intents: dict[tuple[str, str, str], str] = {}
        self._buffer: list[Receipt] = []
        self._flushing: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Load what earlier attempts left."""

        def read(conn: sqlite3.Connection) -> tuple[bytes | None, list[tuple[str, str, str, str]]]:
            row = conn.execute(
                "SELECT data FROM checkpoints WHERE origin = ?", (self._origin,)
            ).fetchone()
            intents = conn.execute(
                "SELECT kind, scope, name, object_id FROM intents WHERE origin = ? AND state <> 'removed' ORDER BY at",
                (self._origin,),
            ).fetchall()
            return (row[0] if row else None), intents

        data, intents = await self._writer.commit(read, essential=True)
        plain = decode_plain(data, limit=MAX_CHECKPOINT) if data is not None else None
        self._checkpoint = plain if isinstance(plain, dict) else None
        self._intents = {(kind, scope, name): oid for kind, scope, name, oid in intents}

    # --- receipts -----------------------------------------------------------------------------------------

    def load(self) -> Iterator[Receipt]:
        """See `Receipts.load`."""
        conn = open_reader(self._path)
        try:
            rows = conn.execute(
                "SELECT offset, length, digests FROM receipts WHERE origin = ? ORDER BY offset",
                (self._origin,),
            )
            while page := rows.fetchmany(READ_ROWS):
                yield from page
        finally:
            conn.close()

    def add(self, offset: int, length: int, digests: bytes) -> None:
        """See `Receipts.add`; raises what an earlier write met (`journal.full`)."""
        self._reap()
        self._buffer.append((offset, length, digests))
        if len(self._buffer) >= RECEIPTS_BATCH:
            self._write()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(RECEIPTS_EVERY_S, self._write)

    async def flush(self) -> None:
        """See `Receipts.flush`."""
        self._write()
        waiting, self._flushing = self._flushing, []
        for done in waiting:
            await done

    def let_go(self) -> None:
        """Hand over what is buffered: the stage has ended. Errors no longer matter to anybody, so none is raised."""
        self._write()
        for done in self._flushing:
            done.add_done_callback(_look_at)
        self._flushing = []

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._buffer:
            return
        rows = [(self._origin, *receipt) for receipt in self._buffer]
        self._buffer = []

        def write(conn: sqlite3.Connection) -> None:
            conn.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)", rows)
            # acknowledged bytes are progress: a job that moves data is in no crash loop
            _mark_fruitful(conn, self._digest)

        self._flushing.append(self._writer.submit(write))

    def _reap(self) -> None:
        """Forget finished writes; raise the first error among them."""
        if self._flushing and self._flushing[0].done():
            self._flushing.pop(0).result()

    async def forget_receipts(self) -> None:
        """See `JobStore.forget_receipts`."""
        self._buffer = []
        await self._execute("DELETE FROM receipts WHERE origin = ?", self._origin)

    # --- checkpoint ---------------------------------------------------------------------------------------

    async def checkpoint(self, data: Mapping[str, Any]) -> None:
        """See `JobStore.checkpoint`."""
        raw = encode(dict(data))
        if len(raw) > MAX_CHECKPOINT:
            msg = f"a checkpoint of {len(raw)} bytes, at most {MAX_CHECKPOINT} are kept"
            raise CheckpointTooLarge(msg, size=len(raw))

        def write(conn: sqlite3.Connection) -> None:
            conn.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (self._origin, raw))
            _mark_fruitful(conn, self._digest)

        await self._writer.commit(write)
        self._checkpoint = dict(data)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """See `JobStore.load_checkpoint`."""
        return None if self._checkpoint is None else dict(self._checkpoint)

    async def point_of_no_return(self) -> None:
        """See `JobStore.point_of_no_return`."""

        def mark(conn: sqlite3.Connection) -> bool:
            row = conn.execute(
                "SELECT state, no_return FROM jobs WHERE digest = ?", (self._digest,)
            ).fetchone()
            if row is None or (row[0] != "running" and not row[1]):
                return False
            conn.execute("UPDATE jobs SET no_return = 1 WHERE digest = ?", (self._digest,))
            return True

        if not await self._writer.commit(mark, essential=True):
            raise Cancelled("the job was cancelled before its point of no return")

    # --- intents ------------------------------------------------------------------------------------------

    async def record(self, intent: IntentLike) -> None:
        """See `IntentLog.record`."""
        key = _key(intent)
        if key in self._intents:
            return
        await self._execute(
            "INSERT INTO intents (origin, kind, scope, name, state, at) VALUES (?, ?, ?, ?, 'recorded', ?)"
            " ON CONFLICT DO UPDATE SET state = 'recorded', object_id = '', at = excluded.at",
            self._origin,
            *key,
            self._now_ms(),
        )
        self._intents[key] = ""

    async def created(self, intent: IntentLike, object_id: str) -> None:
        """See `IntentLog.created`."""
        key = _key(intent)
        await self._execute(
            "UPDATE intents SET object_id = ?, state = 'created'"
            " WHERE origin = ? AND kind = ? AND scope = ? AND name = ?",
            object_id,
            self._origin,
            *key,
        )
        self._intents[key] = object_id

    async def removed(self, intent: IntentLike) -> None:
        """See `IntentLog.removed`."""
        key = _key(intent)
        await self._execute(
            "UPDATE intents SET state = 'removed'"
            " WHERE origin = ? AND kind = ? AND scope = ? AND name = ?",
            self._origin,
            *key,
            essential=True,
        )
        self._intents.pop(key, None)

    def known(self, intent: IntentLike) -> str | None:
        """See `IntentLog.known`."""
        return self._intents.get(_key(intent))

    def intents(self) -> list[KnownIntent]:
        """See `JobStore.intents`."""
        return [
            KnownIntent(kind, json.loads(scope), name, object_id)
            for (kind, scope, name), object_id in self._intents.items()
        ]

    async def _execute(self, sql: str, *values: Any, essential: bool = False) -> None:
        await self._writer.commit(lambda conn: _run(conn, sql, values), essential=essential)


def _look_at(done: "asyncio.Future[None]") -> None:
    if not done.cancelled():
        done.exception()


def _mark_fruitful(conn: sqlite3.Connection, digest: bytes) -> None:
    conn.execute("UPDATE jobs SET checkpoint_attempt = attempt WHERE digest = ?", (digest,))


def _run(conn: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> None:
    conn.execute(sql, values)


def _key(intent: IntentLike) -> tuple[str, str, str]:
    return intent.kind, json.dumps(intent.scope, sort_keys=True), intent.name
