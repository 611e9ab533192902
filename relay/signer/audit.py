"""The audit log: who did what, in the transaction that did it. Append-only; each row's hash covers the one before.

hash = SHA-256(hash before + msgpack [n, at, actor, action, tenant, subject, detail]); before row 1: 32 zero bytes.
"""

import hashlib
import sqlite3

import msgspec

from protocol.codec import encode

_FIRST = bytes(32)


def append(
    conn: sqlite3.Connection,
    action: str,
    *,
    at: int,
    actor: str,
    tenant: str,
    subject: str,
    **detail: str | int,
) -> None:
    """Add one row; `detail` holds ids, digests and codes, never a secret."""
    row = conn.execute("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetchone()
    n, before = (row["n"] + 1, row["hash"]) if row else (1, _FIRST)
    text = msgspec.json.encode(detail).decode()
    digest = _hash(before, n, at, actor, action, tenant, subject, text)
    conn.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (n, at, actor, action, tenant, subject, text, digest),
    )


def first_broken(conn: sqlite3.Connection) -> int | None:
    """Return the number of the first row that was changed, removed or inserted later; None if the chain holds."""
    before = _FIRST
    expected = 1
    for row in conn.execute("SELECT * FROM audit ORDER BY n"):
        fields = [row[key] for key in ("n", "at", "actor", "action", "tenant", "subject", "detail")]
        digest = _hash(before, *fields)
        if row["n"] != expected or digest != row["hash"]:
            return expected
        before, expected = digest, expected + 1
    return None


def _hash(before: bytes, *fields: str | int) -> bytes:
    return hashlib.sha256(before + encode(list(fields))).digest()
