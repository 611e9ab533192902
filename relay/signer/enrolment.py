"""Enrolment: a token's holder proves its keys and gets a signed record. One device key is one appliance, for ever.

The same token and keys get the same record again, also after the token ended: the first answer may have been
lost. Nothing here enrols anybody anew by itself (PROTOCOL 7).
"""

import sqlite3

from protocol.codec import decode, encode
from protocol.enrol import EnrolAnswer, EnrolRequest
from protocol.errors import EnrolmentRejected
from protocol.ids import key_id
from protocol.issuer import new_line
from protocol.messages import MAX_STATEMENT, Kind, Record, Role
from protocol.signed import parse_envelope
from relay.signer import appliances, audit, tokens
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects, Outgoing
from relay.signer.http import MSGPACK, Request, Response
from relay.signer.tokens import TokenRow


def enrol(
    conn: sqlite3.Connection, authority: Authority, request: Request, effects: Effects
) -> Response:
    """Answer `POST /v1/enrolments`; who asks is proven by the token's MAC, not by a caller's key.

    Raises:
        EnrolmentRejected, FrameError.
    """
    wanted = decode(request.body, EnrolRequest, limit=MAX_STATEMENT)
    token = tokens.proven(conn, authority, wanted)
    record = _record(conn, authority, token, wanted, effects)
    answer = EnrolAnswer(v=1, root=authority.ring.root, manifest=authority.ring.raw, record=record)
    return Response(200, {"content-type": MSGPACK}, encode(answer))


def _record(
    conn: sqlite3.Connection,
    authority: Authority,
    token: TokenRow,
    wanted: EnrolRequest,
    effects: Effects,
) -> bytes:
    known = tokens.used_by(conn, token.id, wanted)
    if known is not None:
        return _unrevoked(appliances.get(conn, known)).record
    tokens.check_open(token, now=authority.now())
    held = appliances.by_device_key(conn, wanted.device_key)
    if held is None:
        return _first(conn, authority, token, wanted, effects)
    if held.tenant != token.tenant or held.seal_key != wanted.seal_key:
        raise EnrolmentRejected("this device key belongs to another appliance")
    tokens.take_use(conn, token, wanted, held.id, now=authority.now())
    return _unrevoked(held).record


def _first(
    conn: sqlite3.Connection,
    authority: Authority,
    token: TokenRow,
    wanted: EnrolRequest,
    effects: Effects,
) -> bytes:
    now = authority.now()
    record = Record(
        v=1,
        tenant=token.tenant,
        id=_free_id(conn, wanted),
        device_key=wanted.device_key,
        seal_key=wanted.seal_key,
        serial=1,
        epoch=1,
        replaces=token.replaces,
    )
    env = authority.sign(Kind.RECORD, record, role=Role.RECORD, tenant=token.tenant)
    line = new_line(record, parse_envelope(env, limit=MAX_STATEMENT).p)
    appliances.insert(conn, line, record, env, at=now)
    tokens.take_use(conn, token, wanted, record.id, now=now)
    audit.append(
        conn, "appliance.enrolled", at=now, actor=token.id, tenant=token.tenant, subject=record.id,
        device_key=key_id(record.device_key).hex(), replaces=token.replaces or "",
    )  # fmt: skip
    effects.outgoing += [
        Outgoing("manifest", token.tenant, "*", authority.ring.raw),
        Outgoing("record", token.tenant, record.id, env),
    ]
    effects.replay.add(record.id)
    effects.note("appliance enrolled", appliance=record.id, tenant=token.tenant)
    if token.replaces is not None:
        old = appliances.get(conn, token.replaces, tenant=token.tenant)
        retire(conn, authority, old, actor=token.id, effects=effects)
    return env


def retire(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    *,
    actor: str,
    effects: Effects,
) -> None:
    """Sign the record that ends an appliance; a second time changes nothing."""
    if appliance.revoked is not None:
        return
    now = authority.now()
    record = Record(
        v=1,
        tenant=appliance.tenant,
        id=appliance.id,
        device_key=appliance.device_key,
        seal_key=appliance.seal_key,
        serial=appliance.serial + 1,
        epoch=appliance.line.head.epoch,
        revoked=now,
    )
    env = authority.sign(Kind.RECORD, record, role=Role.RECORD, tenant=appliance.tenant)
    appliances.save_record(conn, record, env)
    audit.append(
        conn, "appliance.revoked", at=now, actor=actor, tenant=appliance.tenant,
        subject=appliance.id, serial=record.serial,
    )  # fmt: skip
    effects.replay.add(appliance.id)
    effects.note("appliance revoked", appliance=appliance.id, tenant=appliance.tenant)


def _free_id(conn: sqlite3.Connection, wanted: EnrolRequest) -> str:
    """Return the wished-for name if nobody ever had it, else one with the key's own suffix: ids are never reused."""
    suffix = key_id(wanted.device_key).hex()
    names = [f"appliance-{suffix[:8]}", f"appliance-{suffix}"]
    if wanted.name:
        stem = wanted.name[:40]
        names = [wanted.name, f"{stem}-{suffix[:8]}", f"{stem}-{suffix[:20]}", *names]
    for name in names:
        if not appliances.is_taken(conn, name):
            return name
    raise EnrolmentRejected("no free id for this appliance")


def _unrevoked(appliance: Appliance) -> Appliance:
    if appliance.revoked is not None:
        raise EnrolmentRejected("this appliance was revoked; its keys are not enrolled again")
    return appliance
