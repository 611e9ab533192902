"""Jobs, events and the audit log in SQLite: what every other transaction adds to. Runs in the writer's thread.

Reading functions take a plain connection, so the reader's thread uses them too.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from protocol.jobs import Progress
from relay.store import rules
from relay.store.base import AuditEntry, Job, LogEvent, Result, Update

_JOB = (
    "tenant, id, appliance, op, epoch, seq, digest, state, created, updated, ord, workflow, "
    "progress, progress_event, event_journal, event_n, message, code, result"
)
_PROGRESS = msgspec.json.Decoder(Progress)


def job_of_row(row: tuple[Any, ...]) -> Job:
    """Return the job of a row of `_JOB` + report."""
    progress = None if row[12] is None else _PROGRESS.decode(row[12])
    fields: list[Any] = [*row[:12], progress, *row[13:]]
    return Job(*fields)


def find_job(conn: sqlite3.Connection, tenant: str, id_: bytes) -> Job | None:
    """Return one job."""
    sql = f"SELECT {_JOB}, report FROM job WHERE tenant = ? AND id = ?"  # noqa: S608  # constants
    row = conn.execute(sql, (tenant, id_)).fetchone()
    return None if row is None else job_of_row(row)


def list_jobs(
    conn: sqlite3.Connection, tenant: str, *, before: int, limit: int, appliance: str, state: str
) -> tuple[Job, ...]:
    """Return jobs, newest first, without their reports."""
    where, values = ["tenant = ?"], [tenant]
    for column, value in (("appliance", appliance), ("state", state)):
        if value:
            where.append(f"{column} = ?")
            values.append(value)
    sql = (
        f"SELECT {_JOB}, x'' FROM job WHERE {' AND '.join(where)} AND (? = 0 OR ord < ?) "  # noqa: S608  # constants
        "ORDER BY ord DESC LIMIT ?"
    )
    return tuple(map(job_of_row, conn.execute(sql, (*values, before, before, limit))))


def list_events(
    conn: sqlite3.Connection, tenant: str, *, after: int, limit: int, job: bytes
) -> tuple[LogEvent, ...]:
    """Return kept events and each job's newest progress above `after`."""
    only, args = (" AND job = ?", (job,)) if job else ("", ())
    kept = conn.execute(
        f"SELECT id, kind, at, job, data FROM event WHERE tenant = ? AND id > ?{only} ORDER BY id LIMIT ?",  # noqa: S608  # constants
        (tenant, after, *args, limit),
    )
    found = [LogEvent(*row) for row in kept]
    only, args = (" AND id = ?", (job,)) if job else ("", ())
    moved = conn.execute(
        f"SELECT {_JOB}, x'' FROM job WHERE tenant = ? AND progress_event > ?{only} "  # noqa: S608  # constants
        "ORDER BY progress_event LIMIT ?",
        (tenant, after, *args, limit),
    )
    for row in map(job_of_row, moved):
        data = rules.progress_data(row)
        found.append(LogEvent(row.progress_event, "progress", row.updated, row.id, data))
    return tuple(sorted(found, key=lambda event: event.id)[:limit])


def list_audit(
    conn: sqlite3.Connection, tenant: str, *, after: int, limit: int
) -> tuple[AuditEntry, ...]:
    """Return audit entries above `after`."""
    rows = conn.execute(
        "SELECT n, at, actor, action, subject, detail, hash FROM audit WHERE tenant = ? AND n > ? ORDER BY n LIMIT ?",
        (tenant, after, limit),
    )
    return tuple(AuditEntry(*row) for row in rows)


@dataclass(slots=True)
class Ledger:
    """The writer's connection and the last event id that was given out."""

    conn: sqlite3.Connection
    last_event: int

    @classmethod
    def open(cls, conn: sqlite3.Connection) -> "Ledger":
        """Find where event ids go on, and mark everybody offline: no connection outlives the process."""
        (last,) = conn.execute(
            "SELECT coalesce(max(max("
            "coalesce((SELECT max(id) FROM event e WHERE e.tenant = t.tenant), 0), "
            "coalesce((SELECT max(progress_event) FROM job j WHERE j.tenant = t.tenant), 0))), 0) "
            "FROM (SELECT DISTINCT tenant FROM appliance) t"
        ).fetchone()
        conn.execute("UPDATE appliance SET connected = 0 WHERE connected = 1")
        return cls(conn, last)

    def event_id(self, now: int) -> int:
        """Allocate the next event id."""
        self.last_event = rules.next_event_id(self.last_event, now)
        return self.last_event

    def log(
        self, tenant: str, kind: Literal["state", "appliance"], *, job: bytes, now: int, data: bytes
    ) -> None:
        """Append to the event stream."""
        row = (tenant, self.event_id(now), kind, now, job, data)
        self.conn.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", row)

    def note(  # noqa: PLR0917  # the columns of an audit entry, in their order
        self, tenant: str, actor: str, action: str, subject: str, detail: str, now: int
    ) -> None:
        """Append to the audit log."""
        last = self.conn.execute(
            "SELECT n, hash FROM audit WHERE tenant = ? ORDER BY n DESC LIMIT 1", (tenant,)
        ).fetchone()
        n, before = last or (0, rules.GENESIS)
        fields = (n + 1, now, actor, action, subject, detail)
        row = (tenant, *fields, rules.audit_hash(before, fields))
        self.conn.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def save_job(self, old: Job | None, new: Job | None) -> None:
        """Store a job's next row and its event; None means that nothing changed."""
        if new is None:
            return
        if old is None:
            self._insert_job(new)
        else:
            self._update_job(old, new)
        if old is None or rules.is_news(old, new):
            data = rules.state_data(new)
            self.log(new.tenant, "state", job=new.id, now=new.updated, data=data)

    def _insert_job(self, job: Job) -> None:
        progress = None if job.progress is None else msgspec.json.encode(job.progress)
        row = (
            job.tenant, job.id, job.appliance, job.op, job.epoch, job.seq, job.digest, job.state, job.created,
            job.updated, job.order, job.workflow, progress, job.progress_event, job.event_journal, job.event_n,
            job.message, job.code, job.result, job.report,
        )  # fmt: skip
        marks = ", ".join("?" * len(row))
        self.conn.execute(f"INSERT INTO job VALUES ({marks})", row)  # noqa: S608  # constants

    def _update_job(self, old: Job, new: Job) -> None:
        """Write what may change; an index is touched only if its column did."""
        self.conn.execute(
            "UPDATE job SET epoch = ?, seq = ?, digest = ?, state = ?, updated = ?, event_journal = ?, event_n = ?, "
            "message = ?, code = ? WHERE tenant = ? AND id = ?",
            (
                new.epoch, new.seq, new.digest, new.state, new.updated, new.event_journal, new.event_n, new.message,
                new.code, new.tenant, new.id,
            ),
        )  # fmt: skip
        if new.progress_event != old.progress_event:
            self.conn.execute(
                "UPDATE job SET progress = ?, progress_event = ? WHERE tenant = ? AND id = ?",
                (msgspec.json.encode(new.progress), new.progress_event, new.tenant, new.id),
            )
        if new.result != old.result:
            self.conn.execute(
                "UPDATE job SET result = ?, report = ? WHERE tenant = ? AND id = ?",
                (new.result, new.report, new.tenant, new.id),
            )

    def update(self, tenant: str, appliance: str, update: Update, now: int) -> bool:
        """Apply an agent's event to its job."""
        job = find_job(self.conn, tenant, update.id)
        new = None if job is None else rules.updated(job, appliance, update, now=now)
        if job is None or new is None:
            return False
        if new.progress != job.progress:
            new = replace(new, progress_event=self.event_id(now))
        self.save_job(job, new)
        return True

    def add_result(self, tenant: str, appliance: str, result: Result, now: int) -> bool:
        """Keep one result and end its job; False if it contradicts the one that is there."""
        key = (tenant, appliance, result.journal, result.n)
        found = self.conn.execute(
            "SELECT env FROM result WHERE tenant = ? AND appliance = ? AND journal = ? AND n = ?",
            key,
        ).fetchone()
        if found is not None:
            return self._same_result(found[0], tenant, appliance, result, now)
        self.conn.execute(
            "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key, result.id, result.digest, result.epoch, result.seq, result.op, result.status, result.code,
                result.workflow, result.env, result.report, now,
            ),
        )  # fmt: skip
        self.note(tenant, appliance, "result.stored", result.id.hex(), result.status, now)
        job = find_job(self.conn, tenant, result.id)
        made = job or rules.job_of_result(
            tenant, appliance, result, order=self.event_id(now), now=now
        )
        self.save_job(job, rules.ended(made, appliance, result, now=now))
        return True

    def _same_result(
        self, held: bytes, tenant: str, appliance: str, result: Result, now: int
    ) -> bool:
        if rules.same_statement(held, result.env):
            return True
        action = "appliance.equivocation"
        self.note(tenant, appliance, action, result.id.hex(), str(result.n), now)
        return False

    def jobs_of(self, tenant: str, ids: Iterable[tuple[bytes, bytes]]) -> Iterable[Job]:
        """Yield the jobs of (command id, digest) pairs whose row still means that very envelope."""
        for id_, digest in ids:
            job = find_job(self.conn, tenant, id_)
            if job is not None and job.digest == digest:
                yield job
