"""What both stores must decide alike: a job's next state, event ids, the audit chain. Pure functions over rows.

| job state | set by |
|---|---|
| queued | the envelope is stored here |
| quarantined | the appliance's verifier refused the envelope; another one may come for the same command |
| accepted | a device-signed ack |
| waiting, running, cancelling | a device-signed event |
| succeeded, failed, cancelled, refused | a device-signed result, nothing else; the first one stands |
"""

import hashlib
from dataclasses import replace
from typing import Any, Literal

import msgspec

from protocol.errors import FrameError
from protocol.jobs import FINAL, merge_progress
from protocol.messages import MAX_EPOCH_ORDER, MAX_RESULT
from protocol.signed import parse_envelope
from relay.store.base import NEWEST_WINS, Command, Job, Kept, Result, Update

QUEUED = "queued"
QUARANTINED = "quarantined"
FINAL_STATES = frozenset(state.value for state in FINAL)
_NOT_DELIVERED = frozenset({QUEUED, QUARANTINED})

SIGNED_AGAIN: frozenset[str] = frozenset({"epoch", "record"})
"""Kinds that another key may have signed again, byte for byte: the signer does so when the first key is revoked."""
GENESIS = bytes(32)
"""The hash before the first audit entry of a tenant."""


def keeps(old: Kept | None, item: Kept) -> Literal["new", "same", "stale"]:
    """Return what a signed thing is beside the one that is held: what is kept is "new" (see `Store.keep`)."""
    if old is None or item.kind in NEWEST_WINS:
        return "new"
    if old.env == item.env:
        return "same"
    if item.serial == old.serial and item.kind in SIGNED_AGAIN and _payload(item) == _payload(old):
        return "new"
    return "stale" if item.serial <= old.serial else "new"


def _payload(item: Kept) -> bytes:
    try:
        return parse_envelope(item.env, limit=MAX_EPOCH_ORDER).p
    except FrameError:
        return item.env


def audit_hash(before: bytes, fields: tuple[int, int, str, str, str, str]) -> bytes:
    """Return SHA-256(before + msgpack [n, at, actor, action, subject, detail])."""
    return hashlib.sha256(before + msgspec.msgpack.encode(list(fields))).digest()


def next_event_id(last: int, now: int) -> int:
    """Return an id above `last` that a store restored from yesterday's backup would not give out again."""
    return max(last + 1, now * 1000)


def job_of_command(command: Command, *, order: int, now: int) -> Job:
    """Return the job row of a command that was just queued."""
    return Job(
        tenant=command.tenant,
        id=command.id,
        appliance=command.appliance,
        op=command.op,
        epoch=command.epoch,
        seq=command.seq,
        digest=command.digest,
        state=QUEUED,
        created=now,
        updated=now,
        order=order,
        workflow=command.workflow,
    )


def job_of_result(tenant: str, appliance: str, result: Result, *, order: int, now: int) -> Job:
    """Return the job row of a result whose command this store never had, or lost."""
    return Job(
        tenant=tenant,
        id=result.id,
        appliance=appliance,
        op=result.op,
        epoch=result.epoch,
        seq=result.seq,
        digest=result.digest,
        state=QUEUED,
        created=now,
        updated=now,
        order=order,
        workflow=result.workflow,
    )


def requeued(job: Job, command: Command, *, now: int) -> Job | None:
    """Return the job when its command was signed anew (other number, epoch or bytes), None if nothing changes.

    Only the command's own appliance may move, and a job that is past delivery does not move.
    """
    if job.appliance != command.appliance or job.state not in _NOT_DELIVERED:
        return None
    if job.state == QUEUED and job.digest == command.digest:
        return None
    return replace(
        job,
        state=QUEUED,
        epoch=command.epoch,
        seq=command.seq,
        digest=command.digest,
        code=None,
        message=None,
        updated=now,
    )


def acknowledged(job: Job, *, now: int) -> Job | None:
    """Return the job when its command is durable at the appliance, None if that is no news."""
    if job.state not in _NOT_DELIVERED:
        return None
    return replace(job, state="accepted", code=None, message=None, updated=now)


def quarantined(job: Job, *, code: str, now: int) -> Job | None:
    """Return the job when its envelope was refused, None if it got past that."""
    if job.state != QUEUED:
        return None
    return replace(job, state=QUARANTINED, code=code, updated=now)


def updated(job: Job, appliance: str, update: Update, *, now: int) -> Job | None:
    """Return the job after an agent's event, None if the event says nothing new."""
    if job.appliance != appliance or job.state in FINAL_STATES:
        return None
    if job.event_journal == update.journal and update.n <= job.event_n:
        return None
    body = update.body
    progress = (
        job.progress if body.progress is None else merge_progress(job.progress, body.progress)
    )
    return replace(
        job,
        state=job.state if body.state in FINAL else body.state.value,
        progress=progress,
        event_journal=update.journal,
        event_n=update.n,
        message=job.message if body.message is None else body.message,
        code=body.code,
        updated=now,
    )


def ended(job: Job, appliance: str, result: Result, *, now: int) -> Job | None:
    """Return the job with its result, None if it has one or the result is not of this job."""
    if job.appliance != appliance or job.state in FINAL_STATES or job.digest != result.digest:
        return None
    return replace(
        job,
        state=result.status,
        code=result.code,
        result=result.env,
        report=result.report,
        updated=now,
    )


def same_statement(one: bytes, other: bytes) -> bool:
    """Whether two envelopes say the same: the key hint and the signature around a payload are not part of it."""
    if one == other:
        return True
    try:
        mine, theirs = (parse_envelope(env, limit=MAX_RESULT) for env in (one, other))
    except FrameError:
        return False
    return mine.p == theirs.p


def is_news(old: Job, new: Job) -> bool:
    """Whether a change is kept in the stream for ever; progress alone is not."""
    return (old.state, old.code, old.message) != (new.state, new.code, new.message)


def state_data(job: Job) -> bytes:
    """Return the JSON of a `state` event."""
    data: dict[str, Any] = {
        "job": job.id.hex(),
        "appliance": job.appliance,
        "op": job.op,
        "state": job.state,
        "at": job.updated,
    }
    if job.code:
        data["code"] = job.code
    if job.message:
        data["message"] = job.message
    return msgspec.json.encode(data)


def progress_data(job: Job) -> bytes:
    """Return the JSON of a `progress` event."""
    data = {
        "job": job.id.hex(),
        "state": job.state,
        "at": job.updated,
        "progress": job.progress,
    }
    return msgspec.json.encode(data)


def appliance_data(appliance: str, *, connected: bool, generation: int, at: int) -> bytes:
    """Return the JSON of an `appliance` event."""
    data = {"appliance": appliance, "connected": connected, "generation": generation, "at": at}
    return msgspec.json.encode(data)


def state_of(data: bytes) -> str:
    """Return the job state in a `state` event's JSON."""
    state: str = msgspec.json.decode(data)["state"]
    return state
