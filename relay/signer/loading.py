"""Reading the outbox from the database: heads for the attachment, and the next pushes of one appliance. SQL only."""

import sqlite3
from dataclasses import dataclass, replace

from protocol.control import ApplianceHead
from protocol.messages import ResultsThrough
from relay.signer import appliances, orders
from relay.signer.authority import Authority, Outgoing
from relay.signer.outbox import Cursor

BATCH = 32


@dataclass(frozen=True, slots=True)
class Heads:
    """What the signer states when it attaches, and what each appliance stated last."""

    heads: tuple[ApplianceHead, ...]
    seen: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """The next pushes of one appliance: (thing, seq; 0 if it is no command), and where the cursor stands then."""

    items: tuple[tuple[Outgoing, int], ...]
    epoch: int
    next_seq: int
    more: bool


def load_heads(conn: sqlite3.Connection) -> Heads:
    """Return the heads of all appliances."""
    rows = appliances.every(conn)
    return Heads(tuple(_head(row) for row in rows), {row.id: row.line.seen for row in rows})


def load_batch(
    conn: sqlite3.Connection, authority: Authority, name: str, cursor: Cursor, *, limit: int
) -> Batch:
    """Return what is to be pushed next for an appliance, in the order in which the relay needs it.

    A revoked appliance gets its record only.
    """
    appliance = appliances.get(conn, name)
    epoch = appliance.line.head.epoch
    if cursor.epoch != epoch:
        cursor = replace(cursor, epoch=epoch, seq=1, replay=True)
    items = [(item, 0) for item in _standing(conn, authority, appliance)] if cursor.replay else []
    room = 0 if appliance.revoked is not None else max(min(limit, BATCH) - len(items), 0)
    rows = orders.envelopes_from(conn, name, epoch, cursor.seq, limit=room)
    items += [(Outgoing("command", appliance.tenant, name, env), seq) for seq, env in rows]
    next_seq = rows[-1][0] + 1 if rows else cursor.seq
    more = appliance.revoked is None and next_seq <= appliance.line.head.have
    return Batch(tuple(items), epoch, next_seq, more)


def _standing(
    conn: sqlite3.Connection, authority: Authority, appliance: appliances.Appliance
) -> list[Outgoing]:
    tenant, name = appliance.tenant, appliance.id
    things = [
        Outgoing("manifest", tenant, "*", authority.ring.raw),
        Outgoing("record", tenant, name, appliance.record),
    ]
    order = conn.execute(
        "SELECT env FROM epochs WHERE appliance = ? AND epoch = ?",
        (name, appliance.line.head.epoch),
    ).fetchone()
    if order is not None:
        things.append(Outgoing("epoch", tenant, name, bytes(order["env"])))
    return things


def _head(appliance: appliances.Appliance) -> ApplianceHead:
    line = appliance.line
    results = ResultsThrough(journal=line.journal, n=line.results) if line.journal else None
    return ApplianceHead(
        tenant=line.tenant,
        appliance=line.appliance,
        epoch=line.head.epoch,
        seq=line.head.have,
        results=results,
    )
