"""The acceptor: what an appliance does with the next envelope. Pure: facts in, one verdict out (PROTOCOL 3).

Check order: size, frame, key and role, signature, header, audience, tenant, key dates, epoch, seq, prev, expiry, local
policy, args. An authentic command at have+1 with the right `prev` always consumes its seq, accepted or refused, so
nothing ever sticks; what cannot be consumed gets a nack and leaves its seq free.

| verdict | consumes | what the agent does |
|---|---|---|
| Accept | yes | store, ack, run |
| Refuse | yes | store with a signed `refused` result, ack |
| Again | no | ack what it has |
| Gap | no | fetch from have+1 |
| Hold | no | wait: for signed time or for the current key manifest |
| Reject | no | device-signed nack, rate-limited |
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from protocol.clock import SignedClock
from protocol.codec import decode, decode_plain
from protocol.errors import (
    BadField,
    FrameError,
    NotAuthentic,
    ProtocolError,
    UnknownVersion,
    WrongAudience,
    WrongTenant,
)
from protocol.keys import KeyRing
from protocol.messages import MAX_COMMAND, Command, CommandRef, Kind, ManifestKey
from protocol.ops import parse_args
from protocol.signed import Envelope, parse_envelope

KEEP_DIGESTS = 10_000
"""Digests of consumed commands kept per appliance; older ones are acknowledged as `old`."""

QUEUE_FULL = (
    "1,000 commands wait already, or 10,000 results (256 MiB) are not confirmed by the signer yet;"
    " only cancel is accepted"
)

POISON = frozenset(
    {
        "protocol.oversized",
        "protocol.malformed",
        "protocol.depth",
        "protocol.duplicate-key",
        "protocol.bad-field",
        "protocol.version",
        "protocol.wrong-role",
        "protocol.key-tenant",
        "protocol.key-not-valid",
        "protocol.key-revoked",
        "protocol.bad-signature",
        "protocol.wrong-audience",
        "protocol.wrong-tenant",
        "protocol.epoch-old",
        "protocol.seq-reuse",
        "protocol.fork",
    }
)
"""Nack codes that stay true for this digest for ever: the relay quarantines it and never offers it again. The others
(an epoch or a key that the appliance does not know yet) may pass when the missing order arrives."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far an inbox is: `have` commands of `epoch` are durable and `hash` is the chain there."""

    epoch: int
    have: int
    hash: bytes

    def after(self, digest: bytes) -> "Head":
        """Return the head when the next command, of this digest, is consumed."""
        return Head(self.epoch, self.have + 1, hashlib.sha256(self.hash + digest).digest())


def never_retry(_ref: CommandRef) -> str | None:
    """Refuse every `retry_of`: the default of a journal that keeps no lines of retries."""
    return "job.not-retryable"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the acceptor may know. The callables look into the journal and must not have effects.

    Attributes:
        tenant / appliance: Who we are.
        ring: The trusted key manifest.
        head: The inbox.
        clock: Signed time.
        boot_s: Boot clock now, seconds.
        proven: The signed time asked for in this session's hello has come (or `accept_unproven`).
        manifest_wanted: The serial that the last signed time named.
        accept_unproven: The site's choice for control planes that are not always online.
        digest_at: seq of the current epoch -> digest of the consumed command, None if forgotten.
        digest_of_id: command id -> digest it was consumed under, None if never seen.
        policy: Local policy: command -> error code if the appliance's owner forbids it.
        room: Whether one more command may wait and its result be kept; cancel is taken even without.
        locked: The inbox's lock (`protocol.inbox.InboxState.locked`), "" if there is none.
        retry: Whether a command may be retried: None, or the code that refuses it.
    """

    tenant: str
    appliance: str
    ring: KeyRing
    head: Head
    clock: SignedClock
    boot_s: float
    proven: bool
    manifest_wanted: int
    accept_unproven: bool
    digest_at: Callable[[int], bytes | None]
    digest_of_id: Callable[[bytes], bytes | None]
    policy: Callable[[Command], str | None]
    room: bool
    locked: str = ""
    retry: Callable[[CommandRef], str | None] = never_retry


@dataclass(frozen=True, slots=True)
class Accept:
    """Consume and run."""

    command: Command
    digest: bytes
    head: Head


@dataclass(frozen=True, slots=True)
class Refuse:
    """Consume; the result is `refused` with this code."""

    command: Command
    digest: bytes
    head: Head
    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """Consumed before: acknowledge. `old` if its digest is no longer kept."""

    seq: int
    old: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Something before it is missing: fetch from `seq`."""

    seq: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: `protocol.time-unproven` or `protocol.manifest-stale`."""

    code: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: nack this digest (the payload's if the signature was good, else `name_of` the envelope)."""

    digest: bytes
    code: str
    detail: str


Verdict: TypeAlias = Accept | Refuse | Again | Gap | Hold | Reject


def name_of(data: bytes) -> bytes:
    """Return what names an envelope in a nack as long as its signature was not verified: SHA-256 of all its bytes.

    Its payload's digest must not: a real payload inside a broken envelope would then put the real one in quarantine.
    """
    return hashlib.sha256(data).digest()


def judge(data: bytes, facts: Facts) -> Verdict:
    """Return the verdict on one command envelope."""
    name = name_of(data)
    try:
        envelope = parse_envelope(data, limit=MAX_COMMAND)
        key = facts.ring.key(envelope, Kind.COMMAND)
        name = envelope.digest
        command = _open_header(envelope, key, facts.ring)
        check_addressee(command.tenant, command.audience, facts)
    except (FrameError, NotAuthentic) as err:
        return Reject(name, err.code, str(err))
    digest = envelope.digest
    placed = _placed(command, digest, facts)
    if placed is None:
        placed = held(facts)
    return placed if placed is not None else _consume(command, digest, facts)


def open_command(envelope: Envelope, ring: KeyRing) -> Command:
    """Verify a command's key, role, signature, tenant and dates, and decode its header.

    Raises:
        NotAuthentic, FrameError (UnknownVersion for another header version).
    """
    return _open_header(envelope, ring.key(envelope, Kind.COMMAND), ring)


def _open_header(envelope: Envelope, key: ManifestKey, ring: KeyRing) -> Command:
    ring.check_not_revoked(key)
    command = _decode_header(envelope)
    ring.check_tenant(key, command.tenant)
    ring.check_dates(key, issued=command.iat, expires=command.exp)
    return command


def check_addressee(tenant: str, appliance: str, facts: Facts) -> None:
    """Raise WrongAudience or WrongTenant unless an order is for this very appliance."""
    if appliance != facts.appliance:
        msg = f"for appliance {appliance}, this is {facts.appliance}"
        raise WrongAudience(msg)
    if tenant != facts.tenant:
        msg = f"for tenant {tenant}, this is {facts.tenant}"
        raise WrongTenant(msg)


def held(facts: Facts) -> Hold | None:
    """Return why no order may be consumed now: no signed time in this session yet, or an old key manifest."""
    if not facts.proven:
        return Hold("protocol.time-unproven")
    if facts.manifest_wanted > facts.ring.manifest.serial:
        return Hold("protocol.manifest-stale")
    return None


def _decode_header(envelope: Envelope) -> Command:
    plain = decode_plain(envelope.p, limit=MAX_COMMAND)
    version = plain.get("v") if isinstance(plain, dict) else None
    if isinstance(version, int) and version != 1:
        msg = f"command header v{version}, this release speaks v1"
        raise UnknownVersion(msg, version=version)
    return decode(envelope.p, Command, limit=MAX_COMMAND)


def _placed(command: Command, digest: bytes, facts: Facts) -> Verdict | None:
    head = facts.head
    if command.epoch != head.epoch:
        code = "protocol.epoch-old" if command.epoch < head.epoch else "protocol.epoch-ahead"
        return Reject(digest, code, f"epoch {command.epoch}, this is {head.epoch}")
    if command.seq <= head.have:
        return _seen(command.seq, digest, facts)
    if command.seq > head.have + 1:
        return Gap(head.have + 1)
    if command.prev != head.hash:
        return Reject(digest, "protocol.fork", f"seq {command.seq} continues another history")
    return Hold(facts.locked) if facts.locked else None


def _seen(seq: int, digest: bytes, facts: Facts) -> Verdict:
    known = facts.digest_at(seq)
    if known is not None and known != digest:
        return Reject(digest, "protocol.seq-reuse", f"seq {seq} was another command")
    return Again(seq, old=known is None)


def _consume(command: Command, digest: bytes, facts: Facts) -> Verdict:
    expired = facts.clock.expired(
        command.exp, boot_s=facts.boot_s, accept_unproven=facts.accept_unproven
    )
    if expired is None:
        return Hold("protocol.time-unproven")
    head = facts.head.after(digest)
    if expired:
        return Refuse(command, digest, head, "protocol.expired", f"exp {command.exp} ms UTC")
    code, detail = _refusal(command, digest, facts)
    if code:
        return Refuse(command, digest, head, code, detail)
    return Accept(command, digest, head)


def _refusal(command: Command, digest: bytes, facts: Facts) -> tuple[str, str]:
    known = facts.digest_of_id(command.id)
    if known is not None and known != digest:
        return "protocol.id-reuse", f"id {command.id.hex()} was another command"
    if command.after and command.start_by is None:
        return "protocol.start-by-missing", "a command with `after` needs `start_by`"
    code, detail = _forbidden(command, facts)
    if not code:
        code, detail = _bad_args(command)
    if not code and not facts.room and command.op != "cancel":
        code, detail = "appliance.queue-full", QUEUE_FULL
    return code, detail


def _forbidden(command: Command, facts: Facts) -> tuple[str, str]:
    code = facts.policy(command)
    if code:
        return code, f"the appliance's configuration forbids op {command.op}"
    code = facts.retry(command.retry_of) if command.retry_of is not None else None
    return (code, "the command that it retries cannot be retried") if code else ("", "")


def _bad_args(command: Command) -> tuple[str, str]:
    try:
        parse_args(command.op, command.args_v, command.args)
    except BadField as err:
        return ("protocol.unknown-op" if "op" in err.fields else "protocol.bad-args"), str(err)
    except ProtocolError as err:
        return "protocol.bad-args", str(err)
    return "", ""
