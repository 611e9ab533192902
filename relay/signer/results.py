"""Rows of `results`: what appliances signed about how commands ended. SQL and decoding only.

Every function runs inside a transaction of `Database.run`. Nothing gets in here that was not verified.
"""

import sqlite3
from dataclasses import dataclass, field

from protocol.codec import decode
from protocol.messages import MAX_RESULT, FinalMark, Result
from protocol.signed import parse_envelope

MAX_FINALS = 10_000
"""Marks that one epoch order carries at most (PROTOCOL 4)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A verified result with the report that its `report_digest` names."""

    result: Result
    env: bytes = field(repr=False)
    report: bytes = field(repr=False)
    at: int


def standing(conn: sqlite3.Connection, appliance: str, digest: bytes) -> Kept | None:
    """Return the result that stands for a command: the first one that was verified."""
    row = conn.execute(
        "SELECT env, report, at FROM results WHERE appliance = ? AND digest = ? AND stands = 1",
        (appliance, digest),
    ).fetchone()
    return None if row is None else _kept(row)


def add(conn: sqlite3.Connection, kept: Kept, *, stands: bool) -> None:
    """Store a verified result; one of the same journal and number is left as it is."""
    result = kept.result
    conn.execute(
        "INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(result.appliance, result.journal, result.n, result.tenant, result.id, result.digest),
            *(kept.env, kept.report, result.status, kept.at, int(stands)),
        ),
    )


def finals(conn: sqlite3.Connection, appliance: str) -> tuple[FinalMark, ...]:
    """Return how this appliance's commands ended, the newest MAX_FINALS of them."""
    rows = conn.execute(
        "SELECT id, digest, status FROM results WHERE appliance = ? AND stands = 1 "
        "ORDER BY at DESC, n DESC LIMIT ?",
        (appliance, MAX_FINALS),
    )
    return tuple(FinalMark(id=row[0], digest=row[1], status=row[2]) for row in rows)


def _kept(row: sqlite3.Row) -> Kept:
    envelope = parse_envelope(row["env"], limit=MAX_RESULT)
    result = decode(envelope.p, Result, limit=MAX_RESULT)
    return Kept(result, bytes(row["env"]), bytes(row["report"]), row["at"])
