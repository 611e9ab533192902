"""Rows of the table `appliances`: who an appliance is and the line of its orders. SQL and conversion only.

Every function runs inside a transaction of `Database.run`. Another tenant's appliance is not found.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from protocol.acceptor import Head
from protocol.codec import decode, encode
from protocol.issuer import Line
from protocol.messages import MAX_EPOCH_ORDER, MAX_STATEMENT, Epoch, Hello, Record
from relay.signer.errors import NotFound

T = TypeVar("T")

MAX_LINKS = 64
"""Signed times that may be on their way; an appliance asks every 15 minutes and at each connection."""


@dataclass(frozen=True, slots=True)
class Appliance:
    """One enrolled appliance.

    Attributes:
        line: Its order of commands.
        device_key / seal_key: Its raw public keys, as its record names them.
        serial / record: The record that is in force, and its envelope.
        revoked: When it was revoked, ms UTC.
        began: Digest of the record or epoch payload that began the line's epoch.
        hello: The last verified hello, None before the first.
        hello_at: When it came, ms UTC.
        link: The link that its last hello returned, b"" before the first.
        orders_after: Requests signed before this moment are refused, ms UTC.
    """

    line: Line
    device_key: bytes
    seal_key: bytes
    serial: int
    record: bytes = field(repr=False)
    revoked: int | None
    began: bytes
    hello: Hello | None
    hello_at: int | None
    link: bytes
    orders_after: int

    @property
    def id(self) -> str:
        """The appliance's id."""
        return self.line.appliance

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.line.tenant


def get(conn: sqlite3.Connection, appliance: str, *, tenant: str | None = None) -> Appliance:
    """Return an appliance; `tenant` None looks among all (the local administrator).

    Raises:
        NotFound: There is none of that id and tenant.
    """
    row = conn.execute("SELECT * FROM appliances WHERE id = ?", (appliance,)).fetchone()
    if row is None or (tenant is not None and row["tenant"] != tenant):
        msg = f"no appliance {appliance}"
        raise NotFound(msg, appliance=appliance)
    return _from_row(conn, row)


def by_device_key(conn: sqlite3.Connection, device_key: bytes) -> Appliance | None:
    """Return the appliance that has this device key."""
    row = conn.execute("SELECT * FROM appliances WHERE device_key = ?", (device_key,)).fetchone()
    return None if row is None else _from_row(conn, row)


def every(conn: sqlite3.Connection) -> list[Appliance]:
    """Return all appliances, by id."""
    rows = conn.execute("SELECT * FROM appliances ORDER BY id").fetchall()
    return [_from_row(conn, row) for row in rows]


def is_taken(conn: sqlite3.Connection, appliance: str) -> bool:
    """Whether an id was ever given to an appliance, of whatever tenant."""
    row = conn.execute("SELECT 1 FROM appliances WHERE id = ?", (appliance,)).fetchone()
    return row is not None


def insert(
    conn: sqlite3.Connection, line: Line, record: Record, envelope: bytes, *, at: int
) -> None:
    """Add a newly enrolled appliance."""
    conn.execute(
        "INSERT INTO appliances (id, tenant, device_key, seal_key, serial, record, replaces, enrolled, "
        "epoch, have, hash, seen_epoch, seen_have, journal, results, receipted, hello_nonce, short, "
        "locked, began, link, orders_after) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, x'', 0, 0, x'', 0, '', ?, x'', 0)",
        (
            *(record.id, record.tenant, record.device_key, record.seal_key),
            *(record.serial, envelope, record.replaces, at),
            *(line.head.epoch, line.head.hash, line.seen[0], line.head.hash),
        ),
    )
    _mark_checked(conn, line)


def save_line(conn: sqlite3.Connection, line: Line) -> None:
    """Store a changed line. What began a new epoch is stored with `save_epoch_start`."""
    conn.execute(
        "UPDATE appliances SET epoch = ?, have = ?, hash = ?, seen_epoch = ?, seen_have = ?, "
        "journal = ?, results = ?, receipted = ?, offer = ?, hello_nonce = ?, short = ?, locked = ? "
        "WHERE id = ?",
        (
            *(line.head.epoch, line.head.have, line.head.hash, *line.seen),
            *(line.journal, line.results, line.receipted),
            *(None if line.offer is None else encode(line.offer), line.hello, int(line.short)),
            *(line.locked, line.appliance),
        ),
    )
    _mark_checked(conn, line)


def save_epoch_start(
    conn: sqlite3.Connection, appliance: str, *, began: bytes, orders_after: int
) -> None:
    """Note what began the line's epoch, and from when on requests count."""
    conn.execute(
        "UPDATE appliances SET began = ?, orders_after = ? WHERE id = ?",
        (began, orders_after, appliance),
    )


def save_record(conn: sqlite3.Connection, record: Record, envelope: bytes) -> None:
    """Put a newer record in force."""
    conn.execute(
        "UPDATE appliances SET serial = ?, record = ?, seal_key = ?, revoked = ? WHERE id = ?",
        (record.serial, envelope, record.seal_key, record.revoked, record.id),
    )


def save_hello(conn: sqlite3.Connection, appliance: str, hello: Hello, *, at: int) -> None:
    """Remember the last verified hello."""
    conn.execute(
        "UPDATE appliances SET hello = ?, hello_at = ? WHERE id = ?", (encode(hello), at, appliance)
    )


def issued_links(conn: sqlite3.Connection, appliance: str) -> tuple[bytes, ...]:
    """Return the links of the times that were signed since the appliance last returned one."""
    rows = conn.execute("SELECT link FROM links WHERE appliance = ?", (appliance,))
    return tuple(row["link"] for row in rows)


def add_link(conn: sqlite3.Connection, appliance: str, link: bytes, *, at: int) -> None:
    """Remember the link of a signed time; the oldest beyond MAX_LINKS are forgotten."""
    conn.execute("INSERT INTO links VALUES (?, ?, ?)", (appliance, link, at))
    conn.execute(
        "DELETE FROM links WHERE appliance = ? AND rowid NOT IN "
        "(SELECT rowid FROM links WHERE appliance = ? ORDER BY rowid DESC LIMIT ?)",
        (appliance, appliance, MAX_LINKS),
    )


def confirm_link(conn: sqlite3.Connection, appliance: str, link: bytes) -> None:
    """Note the link that a hello returned; older ones no longer count."""
    conn.execute(
        "DELETE FROM links WHERE appliance = ? AND rowid <= coalesce("
        "(SELECT rowid FROM links WHERE appliance = ? AND link = ?), 0)",
        (appliance, appliance, link),
    )
    conn.execute("UPDATE appliances SET link = ? WHERE id = ?", (link, appliance))


def chain_hash_at(conn: sqlite3.Connection, appliance: Appliance) -> Callable[[int], bytes | None]:
    """Return the look-up of the chain's hash in the line's epoch, as `protocol.issuer` asks for it."""
    epoch = appliance.line.head.epoch

    def look_up(seq: int) -> bytes | None:
        if seq == 0:
            return appliance.began
        row = conn.execute(
            "SELECT chain FROM envelopes WHERE appliance = ? AND epoch = ? AND seq = ?",
            (appliance.id, epoch, seq),
        ).fetchone()
        return None if row is None else bytes(row["chain"])

    return look_up


def _mark_checked(conn: sqlite3.Connection, line: Line) -> None:
    if line.checked:
        conn.execute("INSERT OR IGNORE INTO checked VALUES (?)", (line.appliance,))
    else:
        conn.execute("DELETE FROM checked WHERE appliance = ?", (line.appliance,))


def _from_row(conn: sqlite3.Connection, row: sqlite3.Row) -> Appliance:
    checked = conn.execute("SELECT 1 FROM checked WHERE appliance = ?", (row["id"],)).fetchone()
    line = Line(
        tenant=row["tenant"],
        appliance=row["id"],
        head=Head(row["epoch"], row["have"], row["hash"]),
        seen=(row["seen_epoch"], row["seen_have"]),
        journal=row["journal"],
        results=row["results"],
        receipted=row["receipted"],
        offer=_decode(row["offer"], Epoch, MAX_EPOCH_ORDER),
        hello=row["hello_nonce"],
        short=bool(row["short"]),
        checked=checked is not None,
        locked=row["locked"],
    )
    return Appliance(
        line=line,
        device_key=row["device_key"],
        seal_key=row["seal_key"],
        serial=row["serial"],
        record=row["record"],
        revoked=row["revoked"],
        began=row["began"],
        hello=_decode(row["hello"], Hello, MAX_STATEMENT),
        hello_at=row["hello_at"],
        link=row["link"],
        orders_after=row["orders_after"],
    )


def _decode(data: bytes | None, type_: type[T], limit: int) -> T | None:
    return None if data is None else decode(data, type_, limit=limit)
