"""What a key signed that is no longer good, and still matters, is signed anew: queued orders, epoch orders, records.

A key is good while the manifest lists it and does not revoke it: a lost key simply leaves the list.

Looks at everything each time, so it may be called whenever a key manifest may be new: when one is given, and at start.
"""

import sqlite3
from dataclasses import dataclass

from protocol.ids import key_id
from protocol.outcomes import KEY_REVOKED
from relay.signer import appliances, orders, rebase
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects
from relay.signer.callers import LOCAL
from relay.signer.errors import NoKey, NotRaisable


@dataclass(frozen=True, slots=True)
class Renewed:
    """Appliances whose epoch was raised, and those of which a record or an order was signed again."""

    raised: list[str]
    signed_again: list[str]


def renew(conn: sqlite3.Connection, authority: Authority, *, effects: Effects) -> Renewed:
    """Sign again what the manifest in force no longer proves; what no key is there for waits for the next one."""
    good = frozenset(
        bytes(key_id(key.pub)) for key in authority.ring.manifest.keys if key.revoked is None
    )
    raised = [
        appliance.id
        for appliance in appliances.every(conn)
        if appliance.revoked is None
        and orders.queued_without(conn, appliance.line, good)
        and _raise(conn, authority, appliance, effects)
    ]
    again = [
        appliance.id
        for appliance in appliances.every(conn)
        if _sign_again(conn, authority, appliance, good, effects)
    ]
    return Renewed(raised, again)


def _raise(
    conn: sqlite3.Connection, authority: Authority, appliance: Appliance, effects: Effects
) -> bool:
    try:
        stated = rebase.stated_head(conn, appliance)
        rebase.raise_line(
            conn, authority, appliance, stated, code=KEY_REVOKED, actor=LOCAL, effects=effects
        )
    except (NotRaisable, NoKey) as err:
        effects.note("epoch not raised", appliance=appliance.id, reason=str(err))
        return False
    return True


def _sign_again(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    good: frozenset[bytes],
    effects: Effects,
) -> bool:
    steps = [rebase.sign_record_again]
    if appliance.revoked is None:
        steps.append(rebase.sign_order_again)
    done = False
    for step in steps:
        try:
            done |= step(conn, authority, appliance, good, effects=effects)
        except NoKey as err:
            effects.note("not signed again", appliance=appliance.id, reason=str(err))
    return done
