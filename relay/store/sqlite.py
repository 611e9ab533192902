"""The SQLite store: one file, one writer thread, group commit. The default for one relay process; not for two.

Every method is one function of `sqlite_queue` or `sqlite_ledger`, run in a transaction (`write`) or on the reading
connection (`read`); durability and errors are `sqlite_writer`'s.
"""

import sqlite3
from pathlib import Path
from typing import Any, Literal

import msgspec

from relay.store import sqlite_ledger as ledgers
from relay.store import sqlite_queue as queues
from relay.store.base import (
    RESPONSE_KEPT_MS,
    Answer,
    Appliance,
    Artifact,
    AuditEntry,
    Command,
    Head,
    Job,
    Kept,
    KeptKind,
    Link,
    LogEvent,
    Result,
    ResultsKept,
    Update,
)
from relay.store.sqlite_ledger import Ledger
from relay.store.sqlite_writer import Database


class SqliteStore:
    """See `relay.store.base.Store`. Made by `open_sqlite`."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._db = database
        self._led = ledger

    async def keep(
        self, tenant: str, appliance: str, item: Kept, *, actor: str, now: int
    ) -> Literal["new", "same", "stale"]:
        """See Store."""
        return await self._db.write(
            lambda _: queues.keep(self._led, tenant, appliance, item, actor=actor, now=now)
        )

    async def kept(self, tenant: str, appliance: str, kind: KeptKind) -> Kept | None:
        """See Store."""
        return await self._db.read(lambda conn: queues.find_kept(conn, tenant, appliance, kind))

    async def open_link(
        self,
        tenant: str,
        appliance: str,
        *,
        epoch: int,
        have: int,
        journal: bytes,
        confirmed: int,
        now: int,
    ) -> Link:
        """See Store."""
        return await self._db.write(
            lambda _: queues.open_link(
                self._led, tenant, appliance, epoch, have, journal, confirmed, now
            )
        )

    async def close_link(self, tenant: str, appliance: str, *, generation: int, now: int) -> bool:
        """See Store."""
        return await self._db.write(
            lambda _: queues.close_link(self._led, tenant, appliance, generation, now)
        )

    async def add_command(
        self, command: Command, *, actor: str, answer: Answer | None, now: int
    ) -> Literal["new", "same"]:
        """See Store."""

        def work(conn: sqlite3.Connection) -> Literal["new", "same"]:
            added = queues.add_command(self._led, command, actor=actor, now=now)
            if answer is not None:
                _save_answer(conn, command.tenant, answer, now)
            return added

        return await self._db.write(work)

    async def commands(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, limit: int
    ) -> tuple[Command, ...]:
        """See Store."""
        return await self._db.read(
            lambda conn: queues.list_commands(
                conn, tenant, appliance, epoch=epoch, seq=seq, limit=limit
            )
        )

    async def ack(
        self, tenant: str, appliance: str, *, epoch: int, have: int, env: bytes, now: int
    ) -> bool:
        """See Store."""
        return await self._db.write(
            lambda _: queues.ack(self._led, tenant, appliance, epoch, have, env, now), lazy=True
        )

    async def quarantine(
        self, tenant: str, appliance: str, digest: bytes, *, code: str, nack: Kept, now: int
    ) -> Command | None:
        """See Store."""
        return await self._db.write(
            lambda _: queues.quarantine(self._led, tenant, appliance, digest, code, nack, now)
        )

    async def drop_damaged(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, name: bytes, now: int
    ) -> Command | None:
        """See Store."""
        return await self._db.write(
            lambda _: queues.drop_damaged(self._led, tenant, appliance, epoch, seq, name, now)
        )

    async def add_results(
        self, tenant: str, appliance: str, results: tuple[Result, ...], *, now: int
    ) -> ResultsKept:
        """See Store."""

        def work(conn: sqlite3.Connection) -> ResultsKept:
            clashes = tuple(
                result
                for result in results
                if not self._led.add_result(tenant, appliance, result, now)
            )
            queues.ensure_appliance(self._led, tenant, appliance)
            journal = results[-1].journal
            through = queues.raise_through(conn, tenant, appliance, journal, at_least=0, now=now)
            return ResultsKept(through, clashes)

        return await self._db.write(work)

    async def results(
        self, tenant: str, appliance: str, *, journal: bytes, after: int, limit: int
    ) -> tuple[Result, ...]:
        """See Store."""
        sql = (
            "SELECT journal, n, id, digest, epoch, seq, op, status, code, workflow, env, report FROM result "
            "WHERE tenant = ? AND appliance = ? AND journal = ? AND n > ? ORDER BY n LIMIT ?"
        )
        key = (tenant, appliance, journal, after, limit)
        return await self._db.read(
            lambda conn: tuple(Result(*row) for row in conn.execute(sql, key))
        )

    async def journals(self, tenant: str, appliance: str) -> tuple[bytes, ...]:
        """See Store."""
        sql = "SELECT journal FROM journal WHERE tenant = ? AND appliance = ? ORDER BY first_at, journal"
        return await self._db.read(
            lambda conn: tuple(row[0] for row in conn.execute(sql, (tenant, appliance)))
        )

    async def update(self, tenant: str, appliance: str, update: Update, *, now: int) -> bool:
        """See Store."""
        return await self._db.write(
            lambda _: self._led.update(tenant, appliance, update, now), lazy=True
        )

    async def job(self, tenant: str, job: bytes) -> Job | None:
        """See Store."""
        return await self._db.read(lambda conn: ledgers.find_job(conn, tenant, job))

    async def jobs(
        self, tenant: str, *, before: int, limit: int, appliance: str = "", state: str = ""
    ) -> tuple[Job, ...]:
        """See Store."""
        return await self._db.read(
            lambda conn: ledgers.list_jobs(
                conn, tenant, before=before, limit=limit, appliance=appliance, state=state
            )
        )

    async def events(
        self, tenant: str, *, after: int, limit: int, job: bytes = b""
    ) -> tuple[LogEvent, ...]:
        """See Store."""
        return await self._db.read(
            lambda conn: ledgers.list_events(conn, tenant, after=after, limit=limit, job=job)
        )

    async def appliance(self, tenant: str, appliance: str) -> Appliance | None:
        """See Store."""
        return await self._db.read(lambda conn: queues.find_appliance(conn, tenant, appliance))

    async def appliances(self, tenant: str, *, after: str, limit: int) -> tuple[Appliance, ...]:
        """See Store."""
        return await self._db.read(
            lambda conn: queues.list_appliances(conn, tenant, after=after, limit=limit)
        )

    async def heads(self, tenant: str) -> tuple[Head, ...]:
        """See Store."""
        return await self._db.read(lambda conn: queues.list_heads(conn, tenant))

    async def save_answer(self, tenant: str, answer: Answer, *, now: int) -> None:
        """See Store."""
        await self._db.write(lambda conn: _save_answer(conn, tenant, answer, now))

    async def answer(self, tenant: str, caller: str, key: str, *, now: int) -> Answer | None:
        """See Store."""
        sql = (
            "SELECT caller, key, body_hash, status, headers, body FROM answer "
            "WHERE tenant = ? AND caller = ? AND key = ? AND at > ?"
        )

        def work(conn: sqlite3.Connection) -> Answer | None:
            row = conn.execute(sql, (tenant, caller, key, now - RESPONSE_KEPT_MS)).fetchone()
            if row is None:
                return None
            fields: list[Any] = [*row[:4], msgspec.json.decode(row[4]), row[5]]
            return Answer(*fields)

        return await self._db.read(work)

    async def put_artifact(
        self, tenant: str, artifact: Artifact, *, actor: str, now: int
    ) -> Literal["new", "same"]:
        """See Store."""

        def work(conn: sqlite3.Connection) -> Literal["new", "same"]:
            row = (tenant, artifact.sha256, artifact.size, artifact.at)
            if not conn.execute("INSERT OR IGNORE INTO artifact VALUES (?, ?, ?, ?)", row).rowcount:
                return "same"
            size = f"{artifact.size} bytes"
            self._led.note(tenant, actor, "artifact.stored", artifact.sha256.hex(), size, now)
            return "new"

        return await self._db.write(work)

    async def artifact(self, tenant: str, sha256: bytes) -> Artifact | None:
        """See Store."""
        sql = "SELECT sha256, size, at FROM artifact WHERE tenant = ? AND sha256 = ?"

        def work(conn: sqlite3.Connection) -> Artifact | None:
            row = conn.execute(sql, (tenant, sha256)).fetchone()
            return None if row is None else Artifact(*row)

        return await self._db.read(work)

    async def note(
        self, tenant: str, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> None:
        """See Store."""
        await self._db.write(lambda _: self._led.note(tenant, actor, action, subject, detail, now))

    async def audit(self, tenant: str, *, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """See Store."""
        return await self._db.read(
            lambda conn: ledgers.list_audit(conn, tenant, after=after, limit=limit)
        )

    async def close(self) -> None:
        """See Store."""
        self._db.close()


def open_sqlite(path: Path, *, now: int) -> SqliteStore:
    """Open or make the database at `path` (its folder must exist), bring its schema up to date.

    Raises:
        StoreError, StoreFull, StoreNewer.
    """
    database = Database(path)
    return SqliteStore(database, Ledger.open(database.open(now=now)))


def _save_answer(conn: sqlite3.Connection, tenant: str, answer: Answer, now: int) -> None:
    """Remember an answer, forget those that are past their time."""
    conn.execute("DELETE FROM answer WHERE at <= ?", (now - RESPONSE_KEPT_MS,))
    headers = msgspec.json.encode(answer.headers).decode()
    conn.execute(
        "INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tenant,
            answer.caller,
            answer.key,
            answer.body_hash,
            answer.status,
            headers,
            answer.body,
            now,
        ),
    )
