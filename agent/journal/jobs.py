"""The jobs table: one row per consumed command and its legal moves. Functions on the writer's connection.

Which move is legal is said by `protocol.jobs`; what makes it happen is decided by the runner and by `agent.orders`.
"""

import sqlite3
from dataclasses import dataclass, replace

from protocol.jobs import FINAL, JobEvent, State, advance
from protocol.messages import Command

_COLUMNS = (
    "digest, id, epoch, seq, kid, op, workflow, state, exp, start_by, accepted, started, attempt,"
    " checkpoint_attempt, origin, retried, no_return, code"
)
_NAMES = tuple(_COLUMNS.replace(" ", "").split(","))
_OPEN = "state IN ('accepted', 'waiting', 'running', 'cancelling')"  # word for word the index's
_STARTED = f"{_OPEN} AND state IN ('running', 'cancelling')"


@dataclass(frozen=True, slots=True)
class Job:
    """One command's life. Times are ms UTC; `code` is why it is being cancelled or was refused, else ""."""

    digest: bytes
    id: bytes
    epoch: int
    seq: int
    kid: bytes
    op: str
    workflow: str | None
    state: State
    exp: int
    start_by: int | None
    accepted: int
    started: int | None
    attempt: int
    checkpoint_attempt: int
    origin: bytes
    retried: bool
    no_return: bool
    code: str

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL


def insert(
    conn: sqlite3.Connection, command: Command, *, digest: bytes, kid: bytes, now: int, joins: bool
) -> Job:
    """Add a consumed command as `accepted`.

    Args:
        conn: The writer's connection.
        command: The command.
        digest: Its digest.
        kid: Id of the key that signed it: looked at again at start and resume.
        now: Best known time.
        joins: A retry joins the line of what it retries; not if it is about to be refused.
    """
    origin = command.id
    if joins and command.retry_of is not None:
        retried = get(conn, command.retry_of.digest)
        origin = retried.origin if retried is not None else origin
        conn.execute("UPDATE jobs SET retried = 1 WHERE digest = ?", (command.retry_of.digest,))
    job = Job(
        digest,
        command.id,
        command.epoch,
        command.seq,
        kid,
        command.op,
        command.workflow,
        State.ACCEPTED,
        command.exp,
        command.start_by,
        now,
        None,
        0,
        0,
        origin,
        retried=False,
        no_return=False,
        code="",
    )
    values = [getattr(job, name) for name in _NAMES]
    marks = ", ".join("?" * len(values))
    conn.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - constants
    return job


def get(conn: sqlite3.Connection, digest: bytes) -> Job | None:
    """Return a job by its command's digest."""
    return _one(conn, "digest = ?", digest)


def open_jobs(conn: sqlite3.Connection) -> list[Job]:
    """Return every job that is not final, in order of acceptance."""
    return _many(conn, f"{_OPEN} ORDER BY epoch, seq")


def started_jobs(conn: sqlite3.Connection) -> list[Job]:
    """Return every job that has started and is not final, in order of acceptance."""
    return _many(conn, f"{_STARTED} ORDER BY epoch, seq")


def recent(conn: sqlite3.Connection, limit: int) -> list[Job]:
    """Return the last jobs, newest first."""
    return _many(conn, f"1 ORDER BY epoch DESC, seq DESC LIMIT {int(limit)}")


def unstarted(conn: sqlite3.Connection) -> int:
    """Return how many commands wait for a slot or for a predecessor."""
    row = conn.execute(
        "SELECT count(*) FROM jobs WHERE state IN ('accepted', 'waiting')"
    ).fetchone()
    return int(row[0])


def move(conn: sqlite3.Connection, job: Job, event: JobEvent, *, code: str = "") -> Job:
    """Apply an event; raises IllegalTransition."""
    state = advance(job.state, event)
    code = code or job.code
    conn.execute("UPDATE jobs SET state = ?, code = ? WHERE digest = ?", (state, code, job.digest))
    return replace(job, state=state, code=code)


def begin(conn: sqlite3.Connection, job: Job, *, now: int) -> Job:
    """Move to running, attempt 1: durable before the first effect."""
    moved = move(conn, job, JobEvent.START)
    conn.execute("UPDATE jobs SET attempt = 1, started = ? WHERE digest = ?", (now, job.digest))
    return replace(moved, attempt=1, started=now)


def resume(conn: sqlite3.Connection, job: Job) -> Job:
    """Begin the next attempt of a job that a process left behind."""
    moved = move(conn, job, JobEvent.RESUME)
    conn.execute("UPDATE jobs SET attempt = attempt + 1 WHERE digest = ?", (job.digest,))
    return replace(moved, attempt=job.attempt + 1)


def suspend(conn: sqlite3.Connection, digest: bytes) -> None:
    """Note that an attempt was ended by a clean stop: that is no crash."""
    conn.execute("UPDATE jobs SET checkpoint_attempt = attempt WHERE digest = ?", (digest,))


def close(conn: sqlite3.Connection, job: Job, status: str) -> None:
    """Take the signer's word how a job ended; its line's intents go with it, no result is made."""
    conn.execute("UPDATE jobs SET state = ? WHERE digest = ?", (status, job.digest))
    forget_line(conn, job.origin)
    conn.execute("DELETE FROM intents WHERE origin = ?", (job.origin,))


def forget_line(conn: sqlite3.Connection, origin: bytes) -> None:
    """Drop receipts, checkpoint and settled intents of a line that needs no retry any more."""
    conn.execute("DELETE FROM receipts WHERE origin = ?", (origin,))
    conn.execute("DELETE FROM checkpoints WHERE origin = ?", (origin,))
    conn.execute("DELETE FROM intents WHERE origin = ? AND state = 'removed'", (origin,))


def _one(conn: sqlite3.Connection, where: str, *values: bytes) -> Job | None:
    rows = _many(conn, where, *values)
    return rows[0] if rows else None


def _many(conn: sqlite3.Connection, where: str, *values: bytes) -> list[Job]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values)  # noqa: S608 - constants
    return [_job(row) for row in rows]


def _job(row: tuple[object, ...]) -> Job:
    values = dict(zip(_NAMES, row, strict=True))
    values["state"] = State(str(values["state"]))
    values["retried"] = bool(values["retried"])
    values["no_return"] = bool(values["no_return"])
    return Job(**values)  # type: ignore[arg-type]  # the table is STRICT and the order is _COLUMNS
