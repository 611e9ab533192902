"""Leftovers: objects that jobs created, or were about to, and that no open job needs. Reads and marks only."""

import json
import sqlite3
from dataclasses import dataclass

_QUERY = """
SELECT i.origin, i.kind, i.scope, i.name, i.object_id, i.at FROM intents AS i
WHERE i.state IN ('recorded', 'created')
  AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.origin = i.origin
                  AND j.state IN ('accepted', 'waiting', 'running', 'cancelling'))
ORDER BY i.at
"""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One object that nobody works on any more.

    Attributes:
        origin: The line of commands that made it, hex.
        kind / scope / name / object_id: As in its intent.
        at: When the intent was written, ms UTC.
    """

    origin: str
    kind: str
    scope: dict[str, str]
    name: str
    object_id: str
    at: int


def find(conn: sqlite3.Connection) -> list[Leftover]:
    """Return every intent of a line without an open job that neither succeeded nor cleaned it up, oldest first."""
    rows = conn.execute(_QUERY).fetchall()
    return [
        Leftover(origin.hex(), kind, json.loads(scope), name, object_id, at)
        for origin, kind, scope, name, object_id, at in rows
    ]


def mark_removed(conn: sqlite3.Connection, leftover: Leftover) -> None:
    """Note that the object is gone."""
    conn.execute(
        "UPDATE intents SET state = 'removed' WHERE origin = ? AND kind = ? AND scope = ? AND name = ?",
        (
            bytes.fromhex(leftover.origin),
            leftover.kind,
            json.dumps(leftover.scope, sort_keys=True),
            leftover.name,
        ),
    )
