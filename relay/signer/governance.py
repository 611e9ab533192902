"""The local administrator's API: tokens, appliances, callers, key manifest. Only over the signer's own socket.

| request | answer |
|---|---|
| POST /v1/tokens | an enrolment token, whole, this once |
| GET /v1/appliances | all appliances with their lines |
| POST /v1/appliances/{id}/revoke | the record that ends it was signed |
| POST /v1/appliances/{id}/raise-epoch | an epoch order was signed |
| GET, POST /v1/callers; POST /v1/callers/{kid}/revoke | who may ask |
| PUT /v1/manifest | a newer key manifest is in force; what it no longer proves and still matters is signed again |
| GET /v1/status | what the signer is and whether its audit log is whole |
"""

import sqlite3
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from protocol.ids import IdText
from protocol.keys import KeyRing
from relay.signer import appliances, audit, callers, enrolment, orders, rebase, tokens
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects, store_manifest
from relay.signer.callers import LOCAL
from relay.signer.errors import BadRequest, NotRaisable
from relay.signer.http import Request, Response, json_response, read_json
from relay.signer.renewal import renew

_Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class TokenSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/tokens`. `replaces`: the appliance that the new one retires."""

    tenant: IdText
    uses: _Positive = 1
    ttl_s: _Positive = 24 * 3600
    replaces: IdText | None = None


class CallerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/callers`: a caller's public key, what it is called, and what it may do."""

    public: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    tenant: IdText
    role: Literal["admin", "operator", "reader"] = "operator"
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""


@dataclass(frozen=True, slots=True)
class Governor:
    """One request of the local administrator."""

    conn: sqlite3.Connection
    authority: Authority
    request: Request
    effects: Effects

    def log(self, action: str, tenant: str, subject: str, **detail: str | int) -> None:
        """Write to the audit log."""
        audit.append(
            self.conn, action, at=self.authority.now(), actor=LOCAL, tenant=tenant,
            subject=subject, **detail,
        )  # fmt: skip


def create_token(gov: Governor) -> Response:
    """Answer `POST /v1/tokens`."""
    spec: TokenSpec = read_json(gov.request, TokenSpec)
    limits = gov.authority.limits
    if spec.uses > limits.token_uses or spec.ttl_s > limits.token_ttl_s:
        msg = f"at most {limits.token_uses} uses and {limits.token_ttl_s} s are allowed"
        raise BadRequest(msg)
    if spec.replaces is not None:
        if spec.uses != 1:
            raise BadRequest("a token that replaces an appliance has one use")
        appliances.get(gov.conn, spec.replaces, tenant=spec.tenant)
    token, exp = tokens.create(
        gov.conn,
        gov.authority,
        tenant=spec.tenant,
        uses=spec.uses,
        ttl_ms=spec.ttl_s * 1000,
        replaces=spec.replaces,
    )
    gov.log("token.made", spec.tenant, token.id, uses=spec.uses, exp=exp)
    body = {"id": token.id, "token": token.text(), "tenant": spec.tenant, "exp": exp}
    return json_response(body, status=201)


def list_appliances(gov: Governor) -> Response:
    """Answer `GET /v1/appliances`."""
    return json_response({"appliances": [_view(gov.conn, a) for a in appliances.every(gov.conn)]})


def revoke_appliance(gov: Governor, name: str) -> Response:
    """Answer `POST /v1/appliances/{id}/revoke`."""
    appliance = appliances.get(gov.conn, name)
    enrolment.retire(gov.conn, gov.authority, appliance, actor=LOCAL, effects=gov.effects)
    return json_response(_view(gov.conn, appliances.get(gov.conn, name)))


def raise_epoch(gov: Governor, name: str) -> Response:
    """Answer `POST /v1/appliances/{id}/raise-epoch`."""
    appliance = appliances.get(gov.conn, name)
    if appliance.revoked is not None:
        msg = f"{name} was revoked"
        raise NotRaisable(msg, appliance=name)
    _raise(gov, appliance, code=appliance.line.locked or "signer.administrator")
    return json_response(_view(gov.conn, appliances.get(gov.conn, name)))


def list_callers(gov: Governor) -> Response:
    """Answer `GET /v1/callers`."""
    shown = [
        {
            "id": bytes(row["kid"]).hex(),
            "name": row["name"],
            "tenant": row["tenant"],
            "role": row["role"],
            "revoked": row["revoked"],
        }
        for row in callers.every(gov.conn)
    ]
    return json_response({"callers": shown})


def add_caller(gov: Governor) -> Response:
    """Answer `POST /v1/callers`; a key that is known gets the new role and tenant."""
    spec: CallerSpec = read_json(gov.request, CallerSpec)
    kid = callers.add(
        gov.conn,
        bytes.fromhex(spec.public),
        name=spec.name,
        tenant=spec.tenant,
        role=spec.role,
        at=gov.authority.now(),
    )
    gov.log("caller.added", spec.tenant, kid.hex(), role=spec.role, name=spec.name)
    return json_response({"id": kid.hex(), "tenant": spec.tenant, "role": spec.role}, status=201)


def revoke_caller(gov: Governor, kid: str) -> Response:
    """Answer `POST /v1/callers/{kid}/revoke`."""
    callers.revoke(gov.conn, _hex(kid), at=gov.authority.now())
    gov.log("caller.revoked", "", kid)
    return json_response({"id": kid})


def replace_manifest(gov: Governor) -> Response:
    """Answer `PUT /v1/manifest`: verify it as an appliance would, store it, sign again what it no longer proves."""
    authority = gov.authority
    ring = KeyRing.open(gov.request.body, root=authority.ring.root, trusted=authority.ring)
    store_manifest(gov.conn, ring, at=authority.now())
    authority.ring = ring
    gov.effects.manifest = True
    gov.log("manifest.replaced", "", str(ring.manifest.serial))
    done = renew(gov.conn, authority, effects=gov.effects)
    answer = {"raised": done.raised, "signed_again": done.signed_again}
    return json_response({"serial": ring.manifest.serial, **answer})


def status(gov: Governor) -> Response:
    """Answer `GET /v1/status`."""
    ring = gov.authority.ring
    (orders_signed,) = gov.conn.execute("SELECT count(*) FROM envelopes").fetchone()
    body: dict[str, Any] = {
        "manifest": ring.manifest.serial,
        "vault": gov.authority.keys.vault[0].public.hex(),
        "envelopes": orders_signed,
        "audit_broken_at": audit.first_broken(gov.conn),
        "time": gov.authority.now(),
    }
    return json_response(body)


def _raise(gov: Governor, appliance: Appliance, *, code: str) -> None:
    stated = rebase.stated_head(gov.conn, appliance)
    rebase.raise_line(
        gov.conn, gov.authority, appliance, stated, code=code, actor=LOCAL, effects=gov.effects
    )


def _view(conn: sqlite3.Connection, appliance: Appliance) -> dict[str, Any]:
    line, hello = appliance.line, appliance.hello
    waiting, _ = orders.backlog(conn, line)
    return {
        "id": appliance.id,
        "tenant": appliance.tenant,
        "serial": appliance.serial,
        "revoked": appliance.revoked,
        "epoch": line.head.epoch,
        "signed": line.head.have,
        "seen": list(line.seen),
        "waiting": waiting,
        "results": line.results,
        "blocked": line.blocked,
        "last_hello": appliance.hello_at,
        "manifest": None if hello is None else hello.manifest_serial,
        "capabilities": [] if hello is None else list(hello.caps),
    }


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
