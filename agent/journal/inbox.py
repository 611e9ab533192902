"""The inbox table: consumed commands, so that none runs twice. Functions on the writer's connection; judges nothing."""

import sqlite3

from protocol.acceptor import KEEP_DIGESTS, Head


def put(
    conn: sqlite3.Connection,
    head: Head,
    *,
    digest: bytes,
    command_id: bytes,
    envelope: bytes | None,
) -> None:
    """Store one consumed command at `head`; without an envelope if it will not run."""
    conn.execute(
        "INSERT INTO inbox VALUES (?, ?, ?, ?, ?)",
        (head.epoch, head.have, digest, command_id, envelope),
    )


def digest_at(conn: sqlite3.Connection, epoch: int, seq: int) -> bytes | None:
    """Return the digest consumed at a place, None if it is no longer kept."""
    row = conn.execute(
        "SELECT digest FROM inbox WHERE epoch = ? AND seq = ?", (epoch, seq)
    ).fetchone()
    return row[0] if row else None


def digest_of_id(conn: sqlite3.Connection, command_id: bytes) -> bytes | None:
    """Return the digest that an id was first consumed under, None if it was never seen."""
    row = conn.execute(
        "SELECT digest FROM inbox WHERE id = ? ORDER BY epoch, seq LIMIT 1", (command_id,)
    ).fetchone()
    return row[0] if row else None


def envelope_of(conn: sqlite3.Connection, epoch: int, seq: int) -> bytes | None:
    """Return a command's envelope, None once it was erased."""
    row = conn.execute(
        "SELECT envelope FROM inbox WHERE epoch = ? AND seq = ?", (epoch, seq)
    ).fetchone()
    return row[0] if row else None


def erase(conn: sqlite3.Connection, epoch: int, seq: int) -> None:
    """Drop a final command's envelope, and with it its sealed secrets; the freed bytes are overwritten."""
    conn.execute("UPDATE inbox SET envelope = NULL WHERE epoch = ? AND seq = ?", (epoch, seq))


def forget_old(conn: sqlite3.Connection) -> None:
    """Keep the last 10,000 rows; never one that still has its envelope, because its job is not final."""
    conn.execute(
        "DELETE FROM inbox WHERE envelope IS NULL AND (epoch, seq) <= (SELECT epoch, seq FROM inbox"
        " ORDER BY epoch DESC, seq DESC LIMIT 1 OFFSET ?)",
        (KEEP_DIGESTS,),
    )
