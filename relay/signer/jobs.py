"""The jobs API: specs become signed commands, cancels too, and anybody entitled reads the truth about them.

| request | role | answer |
|---|---|---|
| POST /v1/jobs | operator | 202: signed and durable here; the outbox brings it to the relay |
| POST /v1/jobs/{id}/cancel | operator | 202: a cancel was signed |
| GET /v1/jobs, /v1/jobs/{id} | reader | orders with their verified results |
"""

import sqlite3
from dataclasses import dataclass
from typing import Any

from protocol.codec import encode
from protocol.jobspec import JobSpec
from protocol.messages import Command, CommandRef
from protocol.ops import CancelArgs
from relay.signer import appliances, audit, idempotency, orders, results
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects
from relay.signer.callers import Caller
from relay.signer.errors import BadRequest, BadSpec, NotRetryable, ReplayRefused, RequestReused
from relay.signer.http import Request, Response, json_response, read_json
from relay.signer.issue import Draft, issue
from relay.signer.jobview import describe
from relay.signer.orders import Signed
from relay.signer.specs import read_args, reseal

MAX_PAGE = 200


@dataclass(frozen=True, slots=True)
class Context:
    """One authenticated request with everything that answering it takes."""

    conn: sqlite3.Connection
    authority: Authority
    caller: Caller
    request: Request
    effects: Effects


def submit(ctx: Context) -> Response:
    """Answer `POST /v1/jobs`."""
    spec: JobSpec = read_json(ctx.request, JobSpec)
    ctx.caller.check_tenant(spec.tenant)
    before = _answered(ctx, spec.tenant)
    if before is not None:
        return before
    request = bytes.fromhex(spec.request)
    if orders.request_used(ctx.conn, spec.tenant, request):
        msg = f"the request id {spec.request} was used before"
        raise RequestReused(msg)
    appliance = _orderable(ctx, spec.appliance, tenant=spec.tenant)
    signed, _ = issue(ctx.conn, ctx.authority, appliance, _draft(ctx, spec, appliance))
    return _accepted(ctx, signed, request=request)


def cancel(ctx: Context, job: str) -> Response:
    """Answer `POST /v1/jobs/{id}/cancel`."""
    order = orders.get(ctx.conn, _job_id(job), tenant=ctx.caller.scope)
    before = _answered(ctx, order.tenant)
    if before is not None:
        return before
    appliance = _orderable(ctx, order.appliance, tenant=order.tenant)
    args = encode(CancelArgs(id=order.id, digest=order.digest))
    draft = Draft(
        id=ctx.authority.random(16),
        op="cancel",
        args_v=1,
        args=args,
        exp=None,
        workflow=order.workflow,
    )
    signed, _ = issue(ctx.conn, ctx.authority, appliance, draft)
    return _accepted(ctx, signed, request=None)


def show(ctx: Context, job: str) -> Response:
    """Answer `GET /v1/jobs/{id}`."""
    order = orders.get(ctx.conn, _job_id(job), tenant=ctx.caller.scope)
    return json_response(describe(ctx.conn, order, with_report=True))


def browse(ctx: Context) -> Response:
    """Answer `GET /v1/jobs`: newest first, `next` is the cursor of the following page."""
    query = ctx.request.query("limit", "cursor", "appliance")
    limit = _number(query.get("limit", "50"), "limit", most=MAX_PAGE)
    before = _number(query.get("cursor", "0"), "cursor", most=2**62, least=0)
    found = orders.page(
        ctx.conn,
        tenant=ctx.caller.scope,
        appliance=query.get("appliance"),
        before=before,
        limit=limit + 1,
    )
    body: dict[str, Any] = {
        "jobs": [describe(ctx.conn, order, with_report=False) for order in found[:limit]]
    }
    if len(found) > limit:
        body["next"] = str(found[limit - 1].n)
    return json_response(body)


def _answered(ctx: Context, tenant: str) -> Response | None:
    return idempotency.answered(ctx.conn, ctx.request, tenant=tenant, caller=ctx.caller.id)


def _orderable(ctx: Context, name: str, *, tenant: str) -> Appliance:
    appliance = appliances.get(ctx.conn, name, tenant=tenant)
    signed_at = ctx.caller.signed_at
    if signed_at is not None and signed_at <= appliance.orders_after:
        msg = f"the request was signed before the orders of {name} were re-based"
        raise ReplayRefused(msg, appliance=name)
    return appliance


def _draft(ctx: Context, spec: JobSpec, appliance: Appliance) -> Draft:
    authority = ctx.authority
    args = read_args(spec)
    command = authority.random(16)
    sealed = reseal(
        args,
        authority.keys.vault,
        tenant=spec.tenant,
        caller=ctx.caller.id,
        request=bytes.fromhex(spec.request),
        public=appliance.seal_key,
        scope=(appliance.id, command),
    )
    now = authority.now()
    return Draft(
        id=command,
        op=spec.op,
        args_v=spec.args_v,
        args=encode(sealed),
        exp=now + _valid_ms(authority, spec),
        start_by=None if spec.start_by_s is None else now + spec.start_by_s * 1000,
        retry_of=None if spec.retry_of is None else _retry(ctx, spec),
        workflow=spec.workflow,
    )


def _valid_ms(authority: Authority, spec: JobSpec) -> int:
    longest = authority.limits.valid_s
    if spec.valid_s is not None and spec.valid_s > longest:
        msg = f"valid_s is {spec.valid_s}, at most {longest} is allowed"
        raise BadSpec(msg, limit=longest)
    return authority.valid_ms if spec.valid_s is None else spec.valid_s * 1000


def _retry(ctx: Context, spec: JobSpec) -> CommandRef:
    """Return the reference to a command that ended without success on this appliance and was not retried."""
    order = orders.get(ctx.conn, bytes.fromhex(spec.retry_of or ""), tenant=spec.tenant)
    kept = results.standing(ctx.conn, order.appliance, order.digest)
    if order.appliance != spec.appliance or order.op != spec.op:
        msg = f"{spec.retry_of} was {order.op} on {order.appliance}; a retry is the same op there"
        raise NotRetryable(msg)
    if kept is None or kept.result.status == "succeeded":
        state = "not final" if kept is None else "succeeded"
        msg = f"{spec.retry_of} is {state}; only what ended without success is retried"
        raise NotRetryable(msg)
    if orders.was_retried(ctx.conn, order.id):
        msg = f"{spec.retry_of} was retried before; retry that one"
        raise NotRetryable(msg)
    return CommandRef(id=order.id, digest=order.digest)


def _accepted(ctx: Context, signed: Signed, *, request: bytes | None) -> Response:
    command, at = signed.command, ctx.authority.now()
    orders.insert(ctx.conn, signed, caller=ctx.caller.id, request=request, at=at)
    response = json_response(
        receipt_of(command, signed.digest),
        status=202,
        headers={"location": f"/v1/jobs/{command.id.hex()}"},
    )
    idempotency.remember(
        ctx.conn,
        ctx.request,
        response,
        tenant=command.tenant,
        caller=ctx.caller.id,
        command_ids=[command.id],
        at=at,
    )
    audit.append(
        ctx.conn,
        "command.signed",
        at=at,
        actor=ctx.caller.id,
        tenant=command.tenant,
        subject=command.id.hex(),
        appliance=command.audience,
        op=command.op,
        epoch=command.epoch,
        seq=command.seq,
        digest=signed.digest.hex(),
    )
    ctx.effects.poke.add(command.audience)
    ctx.effects.note(
        "command signed", job=command.id.hex(), appliance=command.audience, op=command.op,
        epoch=command.epoch, seq=command.seq,
    )  # fmt: skip
    return response


def receipt_of(command: Command, digest: bytes) -> dict[str, str | int]:
    """Return what a caller gets for a signed command."""
    return {
        "id": command.id.hex(),
        "digest": digest.hex(),
        "appliance": command.audience,
        "epoch": command.epoch,
        "seq": command.seq,
    }


def _job_id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _number(text: str, name: str, *, most: int, least: int = 1) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text[:20]) <= most:
        msg = f"{name} must be a number from {least} to {most}"
        raise BadRequest(msg)
    return int(text)
