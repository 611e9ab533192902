"""The results table: final words, numbered without gaps, kept until the signer confirmed them.

Functions on the writer's connection. `finish` is the one place where a result is made: the state, the result's exact
bytes and its number are one transaction.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.journal import inbox
from agent.journal.jobs import Job, forget_line
from agent.journal.state import LIMITS
from protocol.codec import decode
from protocol.ids import digest_of
from protocol.inbox import InboxState, number_result
from protocol.jobs import State
from protocol.messages import MAX_RESULT, Kind, Output, Result
from protocol.signed import SigningKey, parse_envelope, sign

KEEP_CONFIRMED = 1000
KEEP_CONFIRMED_MS = 30 * 24 * 3600 * 1000
MAX_UNCONFIRMED = 10_000
MAX_UNCONFIRMED_BYTES = 256 * 1024 * 1024

Row = tuple[int, bytes, bytes]
"""(n, envelope, report)."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who signs results."""

    tenant: str
    appliance: str
    device: SigningKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a job's result says besides its state. `report` is for people; what does not fit is cut."""

    code: str | None = None
    outputs: tuple[Output, ...] = ()
    root: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


def finish(
    conn: sqlite3.Connection,
    state: InboxState,
    job: Job,
    *,
    author: Author,
    ending: Ending,
    now: int,
) -> InboxState:
    """Number, sign and store the result of a job whose row is already final; erase its envelope.

    Returns:
        The order state to store in the same transaction.
    """
    state, n = number_result(state)
    report = report_bytes(ending.report)
    result = Result(
        v=1,
        tenant=author.tenant,
        appliance=author.appliance,
        journal=state.journal,
        n=n,
        id=job.id,
        digest=job.digest,
        epoch=job.epoch,
        seq=job.seq,
        op=job.op,
        status=job.state.value,  # type: ignore[arg-type]  # a final state, by the caller's transition
        attempt=job.attempt,
        ended=now,
        outputs=ending.outputs,
        workflow=job.workflow,
        code=ending.code or None,
        started=job.started,
        report_digest=digest_of(report) if report else None,
        root=ending.root,
    )
    envelope = sign(Kind.RESULT, result, author.device)
    conn.execute(
        "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)",
        (state.journal, n, job.digest, now, envelope, report),
    )
    inbox.erase(conn, job.epoch, job.seq)
    if job.state in {State.SUCCEEDED, State.CANCELLED}:
        forget_line(conn, job.origin)
    if job.state is State.SUCCEEDED:  # what it made is its product, not a leftover
        conn.execute(
            "UPDATE intents SET state = 'kept' WHERE origin = ? AND state = 'created'",
            (job.origin,),
        )
    return state


def report_bytes(report: Mapping[str, Any]) -> bytes:
    """Return the report as JSON of at most 64 KiB; too long a one keeps its short facts."""
    if not report:
        return b""
    raw = json.dumps(report, sort_keys=True, default=str).encode()
    if len(raw) <= MAX_RESULT:
        return raw
    short = {k: v for k, v in report.items() if len(json.dumps(v, default=str)) <= 2048}
    kept = {**dict(list(short.items())[:16]), "cut": True}
    return json.dumps(kept, sort_keys=True, default=str).encode()


def after(conn: sqlite3.Connection, journal: bytes, n: int, limit: int) -> list[Row]:
    """Return results above `n` of this journal's life, by number."""
    return conn.execute(
        "SELECT n, envelope, report FROM results WHERE journal = ? AND n > ? ORDER BY n LIMIT ?",
        (journal, n, limit),
    ).fetchall()


def backlog(conn: sqlite3.Connection, state: InboxState) -> tuple[int, int]:
    """Return how many results, and bytes of them, the signer has not confirmed."""
    row = conn.execute(
        "SELECT count(*), coalesce(sum(length(envelope) + length(report)), 0) FROM results"
        " WHERE journal = ? AND n > ?",
        (state.journal, state.confirmed),
    ).fetchone()
    return int(row[0]), int(row[1])


def renumber(
    conn: sqlite3.Connection, old: InboxState, new: InboxState, *, author: Author
) -> InboxState:
    """Sign every unconfirmed result again under a new life of the journal, in the old order."""
    for n, envelope, _ in after(conn, old.journal, old.confirmed, MAX_UNCONFIRMED):
        new, number = number_result(new)
        result = _replace(opened(envelope), journal=new.journal, n=number)
        conn.execute(
            "UPDATE results SET journal = ?, n = ?, envelope = ? WHERE journal = ? AND n = ?",
            (new.journal, number, sign(Kind.RESULT, result, author.device), old.journal, n),
        )
    return new


def forget_old(conn: sqlite3.Connection, state: InboxState, *, now: int) -> None:
    """Drop job, its limits and report of confirmed results that are neither among the last 1,000 nor under 30 days old.

    The few hundred signed bytes stay: numbers have no gaps, so a relay that lost its store can be given all of them.
    """
    old = (
        "SELECT digest FROM results WHERE ended < :young AND (journal <> :journal OR"
        " (n <= :confirmed AND n <= :last))"
    )
    facts = {
        "young": now - KEEP_CONFIRMED_MS,
        "journal": state.journal,
        "confirmed": state.confirmed,
        "last": state.results_last - KEEP_CONFIRMED,
    }
    limits = f"SELECT '{LIMITS}/' || lower(hex(id)) FROM jobs WHERE digest IN ({old})"  # noqa: S608 - constants
    conn.execute(
        f"DELETE FROM meta WHERE key IN ({limits})",  # noqa: S608 - constants
        facts,
    )
    conn.execute(
        f"DELETE FROM jobs WHERE digest IN ({old})",  # noqa: S608 - constants
        facts,
    )
    conn.execute(
        f"UPDATE results SET report = x'' WHERE digest IN ({old})",  # noqa: S608 - constants
        facts,
    )


def opened(envelope: bytes) -> Result:
    """Decode one of our own results."""
    return decode(parse_envelope(envelope, limit=MAX_RESULT).p, Result, limit=MAX_RESULT)


def _replace(result: Result, **changes: Any) -> Result:
    return msgspec.structs.replace(result, **changes)
