"""What a key signed that is no longer good, and still matters, is signed anew: queued orders, epoch orders, records.

A key is good while the manifest lists it and does not revoke it: a lost key simply leaves the list.
Looks at everything each time, so it may be called whenever a key manifest may be new: when one is given, and at start.
"""

import sqlite3
from dataclasses import dataclass

from protocol.codec import decode
from protocol.ids import key_id
from protocol.messages import MAX_EPOCH_ORDER, MAX_STATEMENT, Kind, Record, Role
from protocol.outcomes import KEY_REVOKED
from protocol.signed import parse_envelope, seal_envelope
from relay.signer import appliances, audit, orders, rebase
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
    renewal = _Renewal(conn, authority, effects, good)
    raised = [one.id for one in appliances.every(conn) if renewal.raise_epoch(one)]
    again = [one.id for one in appliances.every(conn) if renewal.sign_again(one)]
    return Renewed(raised, again)


@dataclass(frozen=True, slots=True)
class _Renewal:
    conn: sqlite3.Connection
    authority: Authority
    effects: Effects
    good: frozenset[bytes]

    def raise_epoch(self, appliance: Appliance) -> bool:
        """Go around queued orders that the appliance will refuse."""
        line = appliance.line
        if appliance.revoked is not None or not orders.queued_without(self.conn, line, self.good):
            return False
        try:
            stated = rebase.stated_head(self.conn, appliance)
            rebase.raise_line(
                self.conn, self.authority, appliance, stated,
                code=KEY_REVOKED, actor=LOCAL, effects=self.effects,
            )  # fmt: skip
        except (NotRaisable, NoKey) as err:
            self.effects.note("epoch not raised", appliance=appliance.id, reason=str(err))
            return False
        return True

    def sign_again(self, appliance: Appliance) -> bool:
        """Sign record and epoch order again, each if it has to be."""
        steps = [self._sign_record]
        if appliance.revoked is None:
            steps.append(self._sign_order)
        done = False
        for step in steps:
            try:
                done |= step(appliance)
            except NoKey as err:
                self.effects.note("not signed again", appliance=appliance.id, reason=str(err))
        return done

    def _sign_order(self, appliance: Appliance) -> bool:
        """Sign the order that began the epoch with another key, unless a good one signed it.

        The payload, and so its digest and the place in the line, stays: an appliance that took the order before sees it
        again. Open orders need it because no appliance takes them any more and no other epoch may be raised before they
        are answered; answered ones because the outbox shows them to the relay before every command of their epoch.
        """
        place = (appliance.id, appliance.line.head.epoch)
        row = self.conn.execute(
            "SELECT env FROM epochs WHERE appliance = ? AND epoch = ?", place
        ).fetchone()
        if row is None:
            return False
        envelope = parse_envelope(bytes(row["env"]), limit=MAX_EPOCH_ORDER)
        if envelope.k in self.good:
            return False
        key = self.authority.key(Role.COMMAND, appliance.tenant).key
        env = seal_envelope(Kind.EPOCH, envelope.p, key)
        self.conn.execute(
            "UPDATE epochs SET env = ? WHERE appliance = ? AND epoch = ?", (env, *place)
        )
        self._tell("epoch", appliance, to=place[1])
        return True

    def _sign_record(self, appliance: Appliance) -> bool:
        """Sign the record with another key, unless a good one signed it.

        The relay believes no other: it would let the appliance in no more, and hold its commands.
        """
        envelope = parse_envelope(appliance.record, limit=MAX_STATEMENT)
        if envelope.k in self.good:
            return False
        key = self.authority.key(Role.RECORD, appliance.tenant).key
        record = decode(envelope.p, Record, limit=MAX_STATEMENT)
        appliances.save_record(self.conn, record, seal_envelope(Kind.RECORD, envelope.p, key))
        self._tell("record", appliance, serial=record.serial)
        return True

    def _tell(self, what: str, appliance: Appliance, **facts: int) -> None:
        audit.append(
            self.conn, f"{what}.signed-again", at=self.authority.now(), actor="signer",
            tenant=appliance.tenant, subject=appliance.id, **facts,
        )  # fmt: skip
        self.effects.replay.add(appliance.id)
        self.effects.note(f"{what} signed again", appliance=appliance.id, **facts)
