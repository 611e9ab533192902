"""Signing one command: number, chain, signature, the appliance's own judgement, and the rows, in one transaction.

What goes out of here was accepted by the very code that the appliance will run (`protocol.acceptor.judge`) with the
capabilities that it announced, so that no order is signed only to be refused.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol.acceptor import Accept, Facts, Refuse, Reject, judge
from protocol.clock import SignedClock
from protocol.codec import encode
from protocol.ids import digest_of
from protocol.issuer import advance, header_for_next, receipt_due
from protocol.messages import Command, CommandRef, Kind, Role
from protocol.signed import seal_envelope
from protocol.versions import understands
from relay.signer import appliances, orders
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority
from relay.signer.errors import ApplianceRevoked, Backlog, NotAccepted
from relay.signer.orders import Signed


@dataclass(frozen=True, slots=True)
class Draft:
    """A command before it has a place.

    Attributes:
        id: 16 bytes.
        op / args_v / args: What is ordered; `args` is the op's msgpack map.
        exp: Latest moment of acceptance, ms UTC; None: as long as the key is valid.
    """

    id: bytes
    op: str
    args_v: int
    args: bytes = field(repr=False)
    exp: int | None
    start_by: int | None = None
    retry_of: CommandRef | None = None
    workflow: str | None = None


def issue(
    conn: sqlite3.Connection, authority: Authority, appliance: Appliance, draft: Draft
) -> tuple[Signed, Appliance]:
    """Sign a draft for an appliance and move its line; the caller stores the order in the same transaction.

    Raises:
        LineLocked: Nothing may be signed for it now.
        ApplianceRevoked, Backlog, NoKey.
        NotAccepted: The appliance would refuse it.
    """
    if appliance.revoked is not None:
        msg = f"{appliance.id} was revoked"
        raise ApplianceRevoked(msg, appliance=appliance.id)
    _check_room(conn, authority, appliance, draft)
    line = appliance.line
    signed = _sign(authority, appliance, draft)
    _check_accepted(authority, appliance, signed)
    moved = advance(line, signed.digest, through=signed.command.results_through)
    appliances.save_line(conn, moved)
    return replace(signed, chain=moved.head.hash), replace(appliance, line=moved)


def _check_room(
    conn: sqlite3.Connection, authority: Authority, appliance: Appliance, draft: Draft
) -> None:
    if draft.op == "cancel":  # a full queue must not keep anybody from emptying it
        return
    count, size = orders.backlog(conn, appliance.line)
    limits = authority.limits
    if count >= limits.backlog or size + len(draft.args) > limits.backlog_bytes:
        msg = f"{count} orders ({size} bytes) wait for {appliance.id} already"
        raise Backlog(msg, appliance=appliance.id, waiting=count)


def _sign(authority: Authority, appliance: Appliance, draft: Draft) -> Signed:
    line = appliance.line
    place = header_for_next(line)
    chosen = authority.key(Role.COMMAND, line.tenant)
    command = Command(
        v=1,
        id=draft.id,
        tenant=line.tenant,
        audience=line.appliance,
        epoch=place.epoch,
        seq=place.seq,
        prev=place.prev,
        op=draft.op,
        args_v=draft.args_v,
        iat=authority.now(),
        exp=chosen.exp if draft.exp is None else draft.exp,
        args=draft.args,
        start_by=draft.start_by,
        retry_of=draft.retry_of,
        workflow=draft.workflow,
        results_through=receipt_due(line),
    )
    payload = encode(command)
    env = seal_envelope(Kind.COMMAND, payload, chosen.key)
    return Signed(command, digest_of(payload), b"", chosen.key.kid, env)


def _check_accepted(authority: Authority, appliance: Appliance, signed: Signed) -> None:
    verdict = judge(signed.env, _facts(authority, appliance))
    if isinstance(verdict, Accept):
        return
    code = verdict.code if isinstance(verdict, Refuse | Reject) else type(verdict).__name__
    detail = verdict.detail if isinstance(verdict, Refuse | Reject) else ""
    msg = f"{appliance.id} would not accept this {signed.command.op}: {code}: {detail}"
    raise NotAccepted(msg, reason=code, appliance=appliance.id)


def _facts(authority: Authority, appliance: Appliance) -> Facts:
    line = appliance.line
    return Facts(
        tenant=line.tenant,
        appliance=line.appliance,
        ring=authority.ring,
        head=line.head,
        clock=SignedClock(floor=authority.now()),
        boot_s=0.0,
        proven=True,
        manifest_wanted=authority.ring.manifest.serial,
        accept_unproven=True,
        digest_at=lambda _seq: None,
        digest_of_id=lambda _id: None,
        policy=_capable(appliance),
        room=True,
        retry=lambda _ref: None,  # `retry_of` was checked against our own truth (relay.signer.jobs)
    )


def _capable(appliance: Appliance) -> Callable[[Command], str | None]:
    # Before its first hello nothing is known about an appliance; it refuses by itself what it cannot do.
    caps = None if appliance.hello is None else frozenset(appliance.hello.caps)

    def policy(command: Command) -> str | None:
        known = caps is None or understands(caps, op=command.op, args_v=command.args_v)
        return None if known else "protocol.unknown-op"

    return policy
