"""What an appliance's relay still has to be given: record, epoch order, envelopes above a place. Reads the database only.

The signer keeps every envelope; the relay stores what it is pushed and says so. Pushing something again is harmless
(the relay compares digests), so a place that is too low costs time and one that is too high is mended at the next hello
or attachment (PROTOCOL 4).
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.control import ApplianceHead
from protocol.messages import ResultsThrough
from relay.signer import appliances, orders
from relay.signer.authority import Outgoing

BATCH = 64
"""Envelopes that are on their way at a time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring envelopes of one epoch; empty if the relay has all of them."""

    epoch: int
    first: int
    envelopes: tuple[bytes, ...] = field(repr=False)
    tenant: str = ""


def heads(conn: sqlite3.Connection) -> tuple[ApplianceHead, ...]:
    """Return what the signer holds of every appliance, for `attach`."""
    return tuple(
        ApplianceHead(
            tenant=a.tenant,
            appliance=a.id,
            epoch=a.line.head.epoch,
            seq=a.line.head.have,
            results=ResultsThrough(journal=a.line.journal, n=a.line.results)
            if a.line.journal
            else None,
        )
        for a in appliances.every(conn)
    )


def next_batch(conn: sqlite3.Connection, appliance: str, place: tuple[int, int]) -> Batch:
    """Return the envelopes above `place` = (epoch, seq durable at the relay).

    A place of another epoch counts as the last one that the appliance acknowledged in this epoch.
    """
    known = appliances.get(conn, appliance)
    line = known.line
    epoch, seen = line.head.epoch, 0
    if line.seen[0] == epoch:
        seen = line.seen[1]
    durable = place[1] if place[0] == epoch else seen
    rows = orders.envelopes_from(conn, appliance, epoch, durable + 1, limit=BATCH)
    return Batch(epoch, durable + 1, tuple(env for _, env in rows), known.tenant)


def unacknowledged(conn: sqlite3.Connection, appliance: str) -> tuple[int, int]:
    """Return the place of the last envelope that the appliance acknowledged."""
    line = appliances.get(conn, appliance).line
    epoch = line.head.epoch
    return epoch, line.seen[1] if line.seen[0] == epoch else 0


def standing_orders(conn: sqlite3.Connection, appliance: str) -> list[Outgoing]:
    """Return what has to be there before any envelope: the record, and the epoch order that is not answered."""
    known = appliances.get(conn, appliance)
    found = [Outgoing("record", known.tenant, appliance, known.record)]
    if known.line.offer is not None:
        row = conn.execute(
            "SELECT env FROM epochs WHERE appliance = ? ORDER BY epoch DESC LIMIT 1", (appliance,)
        ).fetchone()
        if row is not None:
            found.append(Outgoing("epoch", known.tenant, appliance, bytes(row["env"])))
    return found


def tenants(conn: sqlite3.Connection) -> Iterable[str]:
    """Return everybody who has an appliance: they get the key manifest."""
    rows = conn.execute("SELECT DISTINCT tenant FROM appliances ORDER BY tenant").fetchall()
    return [row["tenant"] for row in rows]
