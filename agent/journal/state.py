"""Rows that there is one of: the order state, named values and counters. Functions on the writer's connection."""

import sqlite3

from protocol.acceptor import Head
from protocol.inbox import InboxState

FLOOR = "floor"
MANIFEST = "manifest"
RECORD = "record"
RECORD_SERIAL = "record_serial"
LIMITS = "limits"
"""Args of the last `set-limits`; `limits/<job>`: of the last one for a job; never set: the configuration's."""
LINK = "link"

Value = int | str | bytes | None


def load_state(conn: sqlite3.Connection) -> InboxState | None:
    """Return the order state, None in a new journal."""
    row = conn.execute(
        "SELECT epoch, have, hash, began, journal, results_last, confirmed, locked, inventory_due"
        " FROM state"
    ).fetchone()
    if row is None:
        return None
    epoch, have, hash_, began, journal, last, confirmed, locked, due = row
    return InboxState(
        Head(epoch, have, hash_), began, journal, last, confirmed, locked, inventory_due=bool(due)
    )


def store_state(conn: sqlite3.Connection, state: InboxState) -> None:
    """Replace the order state."""
    head = state.head
    conn.execute(
        "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            head.epoch,
            head.have,
            head.hash,
            state.began,
            state.journal,
            state.results_last,
            state.confirmed,
            state.locked,
            state.inventory_due,
        ),
    )


def get_value(conn: sqlite3.Connection, key: str) -> Value:
    """Return a named value, None if it was never set."""
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def limits_key(job: bytes | None) -> str:
    """Return the name of the limits of a job (by its command's id), or of the appliance."""
    return LIMITS if job is None else f"{LIMITS}/{job.hex()}"


def set_value(conn: sqlite3.Connection, key: str, value: Value) -> None:
    """Set a named value."""
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def count(conn: sqlite3.Connection, names: dict[str, int]) -> None:
    """Add to counters."""
    conn.executemany(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
        list(names.items()),
    )


def counters(conn: sqlite3.Connection) -> dict[str, int]:
    """Return every counter."""
    return dict(conn.execute("SELECT name, value FROM counters ORDER BY name").fetchall())
