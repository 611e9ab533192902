"""Rows of `orders` and `envelopes`: what was ordered, and each signed command in its place. SQL only.

Every function runs inside a transaction of `Database.run`.
"""

import sqlite3
from dataclasses import dataclass, field

from protocol.issuer import Line
from protocol.messages import Command
from protocol.standing import OpenCommand
from relay.signer.errors import NotFound


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the signer knows it.

    `digest`, `epoch` and `seq` are of the envelope that counts; `ended` is the code with which the signer closed
    an order that no appliance will answer.
    """

    n: int
    id: bytes
    tenant: str
    appliance: str
    digest: bytes
    epoch: int
    seq: int
    op: str
    workflow: str | None
    caller: str
    created: int
    retry_of: bytes | None
    ended: str | None


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed command, as `envelopes` keeps it."""

    command: Command
    digest: bytes
    chain: bytes
    kid: bytes
    env: bytes = field(repr=False)


_COLUMNS = (
    "n, id, tenant, appliance, digest, epoch, seq, op, workflow, caller, created, retry_of, ended"
)


def get(conn: sqlite3.Connection, order: bytes, *, tenant: str | None) -> Order:
    """Return an order; `tenant` None looks among all.

    Raises:
        NotFound: There is none of that id and tenant.
    """
    row = conn.execute(f"SELECT {_COLUMNS} FROM orders WHERE id = ?", (order,)).fetchone()  # noqa: S608
    if row is None or (tenant is not None and row["tenant"] != tenant):
        msg = f"no job {order.hex()}"
        raise NotFound(msg, job=order.hex())
    return Order(*row)


def by_digest(conn: sqlite3.Connection, appliance: str, digest: bytes) -> Order | None:
    """Return the order one of whose envelopes has this digest."""
    row = conn.execute(
        f"SELECT {', '.join('o.' + name for name in _COLUMNS.split(', '))} "  # noqa: S608
        "FROM envelopes e JOIN orders o ON o.id = e.id WHERE e.digest = ? AND e.appliance = ?",
        (digest, appliance),
    ).fetchone()
    return None if row is None else Order(*row)


def page(
    conn: sqlite3.Connection, *, tenant: str | None, appliance: str | None, before: int, limit: int
) -> list[Order]:
    """Return orders below the number `before` (0: from the newest), newest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM orders WHERE (?1 IS NULL OR tenant = ?1) "  # noqa: S608
        "AND (?2 IS NULL OR appliance = ?2) AND (?3 = 0 OR n < ?3) ORDER BY n DESC LIMIT ?4",
        (tenant, appliance, before, limit),
    )
    return [Order(*row) for row in rows]


def request_used(conn: sqlite3.Connection, tenant: str, request: bytes) -> bool:
    """Whether a spec's request id was used before."""
    row = conn.execute(
        "SELECT 1 FROM orders WHERE tenant = ? AND request = ?", (tenant, request)
    ).fetchone()
    return row is not None


def was_retried(conn: sqlite3.Connection, order: bytes) -> bool:
    """Whether another order retries this one."""
    row = conn.execute("SELECT 1 FROM orders WHERE retry_of = ?", (order,)).fetchone()
    return row is not None


def insert(
    conn: sqlite3.Connection, signed: Signed, *, caller: str, request: bytes | None, at: int
) -> None:
    """Store a new order with its first envelope. A number that was used before makes this fail."""
    command = signed.command
    retry_of = command.retry_of.id if command.retry_of else None
    conn.execute(
        "INSERT INTO orders (id, tenant, appliance, digest, epoch, seq, op, workflow, caller, request, "
        "created, retry_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(command.id, command.tenant, command.audience, signed.digest, command.epoch),
            *(command.seq, command.op, command.workflow, caller, request, at, retry_of),
        ),
    )
    _insert_envelope(conn, signed, at)


def sign_again(conn: sqlite3.Connection, signed: Signed, *, at: int) -> None:
    """Store another envelope of a known order; from now on this one counts."""
    command = signed.command
    conn.execute(
        "UPDATE orders SET digest = ?, epoch = ?, seq = ? WHERE id = ?",
        (signed.digest, command.epoch, command.seq, command.id),
    )
    _insert_envelope(conn, signed, at)


def end(conn: sqlite3.Connection, order: bytes, code: str) -> None:
    """Close an order that no appliance will answer; the command that it retried may be retried again."""
    conn.execute("UPDATE orders SET ended = ?, retry_of = NULL WHERE id = ?", (code, order))


def envelope(conn: sqlite3.Connection, digest: bytes) -> bytes:
    """Return the envelope of this digest, byte for byte.

    Raises:
        NotFound: It was never signed here.
    """
    row = conn.execute("SELECT env FROM envelopes WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        msg = f"no envelope {digest.hex()}"
        raise NotFound(msg)
    return bytes(row["env"])


def digest_at(conn: sqlite3.Connection, appliance: str, epoch: int, seq: int) -> bytes | None:
    """Return the digest that was signed for a number."""
    row = conn.execute(
        "SELECT digest FROM envelopes WHERE appliance = ? AND epoch = ? AND seq = ?",
        (appliance, epoch, seq),
    ).fetchone()
    return None if row is None else bytes(row["digest"])


def is_signed(
    conn: sqlite3.Connection, appliance: str, epoch: int, digest: bytes, *, above: int
) -> bool:
    """Tell whether a digest was signed for a number of this epoch above `above`."""
    row = conn.execute(
        "SELECT 1 FROM envelopes WHERE appliance = ? AND epoch = ? AND seq > ? AND digest = ?",
        (appliance, epoch, above, digest),
    ).fetchone()
    return row is not None


def envelopes_from(
    conn: sqlite3.Connection, appliance: str, epoch: int, seq: int, *, limit: int
) -> list[tuple[int, bytes]]:
    """Return (seq, envelope) of one epoch from `seq` on, in order."""
    rows = conn.execute(
        "SELECT seq, env FROM envelopes WHERE appliance = ? AND epoch = ? AND seq >= ? "
        "ORDER BY seq LIMIT ?",
        (appliance, epoch, seq, limit),
    )
    return [(row["seq"], bytes(row["env"])) for row in rows]


def open_commands(conn: sqlite3.Connection, appliance: str) -> list[OpenCommand]:
    """Return the orders whose result is not verified, in the order of their numbers."""
    rows = conn.execute(
        "SELECT id, digest, epoch, seq FROM orders o WHERE appliance = ? AND ended IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM results r WHERE r.appliance = o.appliance "
        "AND r.digest = o.digest AND r.stands = 1) ORDER BY epoch, seq",
        (appliance,),
    )
    return [OpenCommand(*row) for row in rows]


def backlog(conn: sqlite3.Connection, line: Line) -> tuple[int, int]:
    """Return number and bytes of the envelopes that the appliance has not acknowledged."""
    epoch = line.head.epoch
    seen = line.seen[1] if line.seen[0] == epoch else 0
    row = conn.execute(
        "SELECT count(*), coalesce(sum(length(env)), 0) FROM envelopes "
        "WHERE appliance = ? AND epoch = ? AND seq > ?",
        (line.appliance, epoch, seen),
    ).fetchone()
    return row[0], row[1]


def queued_without(conn: sqlite3.Connection, line: Line, kids: frozenset[bytes]) -> bool:
    """Whether an envelope that the appliance has not acknowledged was signed by none of these keys."""
    epoch = line.head.epoch
    seen = line.seen[1] if line.seen[0] == epoch else 0
    rows = conn.execute(
        "SELECT DISTINCT kid FROM envelopes WHERE appliance = ? AND epoch = ? AND seq > ?",
        (line.appliance, epoch, seen),
    )
    return any(bytes(row["kid"]) not in kids for row in rows)


def _insert_envelope(conn: sqlite3.Connection, signed: Signed, at: int) -> None:
    command = signed.command
    conn.execute(
        "INSERT INTO envelopes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(command.audience, command.epoch, command.seq, command.id, signed.digest),
            *(signed.chain, signed.kid, signed.env, at),
        ),
    )
