"""Raising an epoch: the way back to a common history after a restore, a fork, a revoked key or a poison envelope.

An order is compare-and-swap on what the appliance itself stated, so a replayed or outdated one changes nothing there.
Until a verified inventory answered it, nothing is signed (`Line.offer`); then every order that the epoch left
behind is signed again under its own id, or closed with a code. PROTOCOL 4.
"""

import sqlite3
from dataclasses import replace

from protocol.acceptor import Head
from protocol.codec import decode, encode
from protocol.errors import LineLocked
from protocol.ids import digest_of
from protocol.inbox import JOURNAL_BEHIND
from protocol.issuer import raise_epoch
from protocol.messages import MAX_COMMAND, Command, Kind, Role
from protocol.ops import CancelArgs
from protocol.signed import parse_envelope, seal_envelope
from protocol.standing import SIGNER_BEHIND, Inventoried
from relay.signer import appliances, audit, orders, results
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects
from relay.signer.errors import NoKey, NotRaisable, SignerError
from relay.signer.issue import Draft, issue
from relay.signer.orders import Order

MAX_RAISES_AN_HOUR = 20
"""Epochs that are raised by themselves; an appliance that needs more states nonsense, and a person must look."""
HOUR_MS = 3600 * 1000
DIGEST_BYTES = 32
EXPIRED = "protocol.expired"


def raise_line(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    stated: Head,
    *,
    code: str,
    actor: str,
    effects: Effects,
) -> None:
    """Sign and store an epoch order.

    Args:
        conn: Inside a transaction.
        authority: Keys and clock.
        appliance: Whose line is re-based.
        stated: Its own (epoch, have, head).
        code: Why.
        actor: Who wanted it; "signer" for an automatic one.
        effects: Receives the push.

    Raises:
        NoKey: No command key for this tenant.
    """
    line, now = appliance.line, authority.now()
    lost = code == JOURNAL_BEHIND or line.short
    marks = results.finals(conn, appliance.id) if lost else ()
    order, payload, raised = raise_epoch(line, stated, marks)
    key = authority.key(Role.COMMAND, appliance.tenant).key
    conn.execute(
        "INSERT INTO epochs (appliance, epoch, env, reason, at) VALUES (?, ?, ?, ?, ?)",
        (appliance.id, order.to, seal_envelope(Kind.EPOCH, payload, key), code, now),
    )
    appliances.save_line(conn, raised)
    # A restored database lost the answers that it gave: requests from before could make the same work twice.
    after = now if code == SIGNER_BEHIND else appliance.orders_after
    appliances.save_epoch_start(conn, appliance.id, began=digest_of(payload), orders_after=after)
    audit.append(
        conn, "epoch.raised", at=now, actor=actor, tenant=appliance.tenant, subject=appliance.id,
        reason=code, to=order.to, have=order.have,
    )  # fmt: skip
    effects.replay.add(appliance.id)
    effects.note("epoch raised", appliance=appliance.id, reason=code, epoch=order.to)


def raise_by_itself(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    stated: Head,
    *,
    code: str,
    effects: Effects,
) -> None:
    """Raise an epoch because a verified statement needs it; stays locked if that is not possible."""
    if len(stated.hash) != DIGEST_BYTES:  # a nack at a place that our history does not know
        return
    (recent,) = conn.execute(
        "SELECT count(*) FROM epochs WHERE appliance = ? AND at > ?",
        (appliance.id, authority.now() - HOUR_MS),
    ).fetchone()
    if recent >= MAX_RAISES_AN_HOUR:
        effects.note("epoch not raised: too many", appliance=appliance.id, reason=code)
        return
    try:
        raise_line(conn, authority, appliance, stated, code=code, actor="signer", effects=effects)
    except NoKey as err:
        effects.note("epoch not raised: no key", appliance=appliance.id, reason=err.code)


def stated_head(conn: sqlite3.Connection, appliance: Appliance) -> Head:
    """Return where an appliance stood when it was last heard of: what an administrator's order is made for.

    Raises:
        NotRaisable: An order waits already, or our history does not know that place.
    """
    line, hello = appliance.line, appliance.hello
    if line.offer is not None:
        msg = f"the order to epoch {line.head.epoch} waits for {appliance.id} to answer"
        raise NotRaisable(msg, appliance=appliance.id)
    if hello is not None and (hello.epoch, hello.have) >= line.seen:
        return Head(hello.epoch, hello.have, hello.head)
    epoch, have = line.seen
    known = appliances.chain_hash_at(conn, appliance)(have) if epoch == line.head.epoch else None
    if known is None:
        msg = f"nothing is known about epoch {epoch}, command {have} of {appliance.id}"
        raise NotRaisable(msg, appliance=appliance.id)
    return Head(epoch, have, known)


def settle(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    found: Inventoried,
    *,
    effects: Effects,
) -> None:
    """Close what the epoch left behind: sign again what never arrived, end what the appliance forgot."""
    for command in found.forgotten:
        orders.end(conn, command, JOURNAL_BEHIND)
        effects.note("order forgotten by its appliance", job=command.hex(), appliance=appliance.id)
    for command in found.sign_again:
        appliance = _order_again(conn, authority, appliance, command, effects=effects)
    if found.foreign:
        effects.note(
            "appliance holds orders that this signer lost",
            appliance=appliance.id,
            count=len(found.foreign),
        )
    audit.append(
        conn, "epoch.settled", at=authority.now(), actor="signer", tenant=appliance.tenant,
        subject=appliance.id, again=len(found.sign_again), forgotten=len(found.forgotten),
        foreign=len(found.foreign),
    )  # fmt: skip
    effects.poke.add(appliance.id)


def _order_again(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    command: bytes,
    *,
    effects: Effects,
) -> Appliance:
    order = orders.get(conn, command, tenant=appliance.tenant)
    draft = _draft_again(conn, order)
    now = authority.now()
    if any(end is not None and end < now for end in (draft.exp, draft.start_by)):
        orders.end(conn, order.id, EXPIRED)
        effects.note("order ended while it could not be signed", job=order.id.hex(), code=EXPIRED)
        return appliance
    try:
        signed, moved = issue(conn, authority, appliance, draft)
    except (SignerError, LineLocked) as err:
        orders.end(conn, order.id, err.code)
        effects.note("order could not be signed again", job=order.id.hex(), code=err.code)
        return appliance
    orders.sign_again(conn, signed, at=now)
    effects.note("command signed again", job=order.id.hex(), appliance=appliance.id)
    return moved


def _draft_again(conn: sqlite3.Connection, order: Order) -> Draft:
    envelope = parse_envelope(orders.envelope(conn, order.digest), limit=MAX_COMMAND)
    command = decode(envelope.p, Command, limit=MAX_COMMAND)
    draft = Draft(
        id=command.id,
        op=command.op,
        args_v=command.args_v,
        args=command.args,
        exp=command.exp,
        start_by=command.start_by,
        retry_of=command.retry_of,
        workflow=command.workflow,
    )
    if command.op != "cancel":
        return draft
    # Its target may have been signed again just before, under another digest.
    args = decode(command.args, CancelArgs, limit=MAX_COMMAND)
    target = orders.get(conn, args.id, tenant=order.tenant)
    return replace(draft, exp=None, args=encode(CancelArgs(id=args.id, digest=target.digest)))
