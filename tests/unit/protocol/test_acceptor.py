"""Every verdict of the acceptor, in check order: the right code, and the earlier fault wins."""

from typing import Any

import msgspec
import pytest

from protocol.acceptor import (
    POISON,
    Accept,
    Again,
    Gap,
    Head,
    Hold,
    Refuse,
    Reject,
    judge,
    name_of,
)
from protocol.clock import SignedClock
from protocol.codec import encode
from protocol.ids import digest_of
from protocol.messages import After, CommandRef, Kind, Revocation
from protocol.ops import CancelArgs
from protocol.signed import Envelope, parse_envelope, sign
from tests.support import protocol_world as w

REF = CommandRef(id=b"R" * 16, digest=b"r" * 32)
AFTER = (After(id=b"A" * 16, audience="site-2", device_key=b"k" * 32, digest=b"d" * 32),)
CANCEL = {"op": "cancel", "args": encode(CancelArgs(id=REF.id, digest=REF.digest))}


def _ring(**row: Any) -> Any:
    keys = tuple(
        msgspec.structs.replace(key, **row) if key.id == "command-1" else key
        for key in w.manifest().keys
    )
    return w.ring(w.manifest(keys=keys))


def _broken(data: bytes) -> bytes:
    envelope = parse_envelope(data, limit=10**6)
    return encode(Envelope(v=1, k=envelope.k, p=envelope.p, s=bytes(64)))


REVOKED = _ring(revoked=Revocation(since=w.T0, running="stop"))
NEXT = w.signed_command()

REJECTED: list[tuple[str, str, bytes, dict[str, Any]]] = [
    ("too large", "protocol.oversized", bytes(300_000), {}),
    ("no msgpack", "protocol.malformed", b"\xc1", {}),
    ("too deep", "protocol.depth", b"\x91" * 17 + b"\xc0", {}),
    ("not an envelope", "protocol.bad-field", b"\x80", {}),
    ("unknown key", "protocol.unknown-key", sign(Kind.COMMAND, w.command(), w.DEVICE), {}),
    ("key of another role", "protocol.wrong-role", sign(Kind.COMMAND, w.command(), w.TIME), {}),
    ("broken signature", "protocol.bad-signature", _broken(NEXT), {}),
    (
        "signed as a receipt",
        "protocol.bad-signature",
        sign(Kind.RECEIPT, w.command(), w.COMMAND),
        {},
    ),
    ("revoked key", "protocol.key-revoked", NEXT, {"ring": REVOKED}),
    ("key of another tenant", "protocol.key-tenant", NEXT, {"ring": _ring(tenants=("other",))}),
    ("issued before its key", "protocol.key-not-valid", NEXT, {"ring": _ring(nbf=w.T0 + 1)}),
    ("ends after its key", "protocol.key-not-valid", NEXT, {"ring": _ring(exp=w.T0 + 1)}),
    ("ends before it begins", "protocol.key-not-valid", w.signed_command(exp=w.T0 - 1), {}),
    ("other appliance", "protocol.wrong-audience", w.signed_command(audience="site-2"), {}),
    ("other tenant", "protocol.wrong-tenant", w.signed_command(tenant="other"), {}),
    ("old epoch", "protocol.epoch-old", w.signed_command(epoch=0), {}),
    ("coming epoch", "protocol.epoch-ahead", w.signed_command(epoch=2), {}),
    ("other history", "protocol.fork", w.signed_command(prev=bytes(32)), {}),
]


@pytest.mark.parametrize(
    ("code", "data", "changes"), [row[1:] for row in REJECTED], ids=[row[0] for row in REJECTED]
)
def test_what_cannot_be_consumed_is_rejected(code: str, data: bytes, changes: Any) -> None:
    verdict = judge(data, w.facts(**changes))
    assert isinstance(verdict, Reject)
    assert verdict.code == code


REFUSED: list[tuple[str, str, bytes, dict[str, Any]]] = [
    ("expired", "protocol.expired", w.signed_command(exp=w.T0 + 1), {}),
    ("start_by missing", "protocol.start-by-missing", w.signed_command(after=AFTER), {}),
    ("forbidden here", "policy.op", NEXT, {"policy": lambda _command: "policy.op"}),
    ("not retryable", "job.not-retryable", w.signed_command(retry_of=REF), {}),
    ("unknown op", "protocol.unknown-op", w.signed_command(op="explode"), {}),
    ("unknown version of the op", "protocol.unknown-op", w.signed_command(args_v=9), {}),
    ("bad args", "protocol.bad-args", w.signed_command(op="cancel"), {}),
    ("args that are no map", "protocol.bad-args", w.signed_command(args=b"\xc1"), {}),
    ("queue full", "appliance.queue-full", NEXT, {"room": False}),
]


@pytest.mark.parametrize(
    ("code", "data", "changes"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_an_authentic_next_command_consumes_its_seq_even_refused(
    code: str, data: bytes, changes: Any
) -> None:
    verdict = judge(data, w.facts(**changes))
    assert isinstance(verdict, Refuse)
    assert verdict.code == code
    assert verdict.head == w.HEAD_0.after(parse_envelope(data, limit=10**6).digest)


HELD: list[tuple[str, str, dict[str, Any]]] = [
    ("no time in this session", "protocol.time-unproven", {"proven": False}),
    ("an older manifest", "protocol.manifest-stale", {"manifest_wanted": 2}),
    ("time no longer fresh", "protocol.time-unproven", {"boot_s": 3601.0}),
    ("never any time", "protocol.time-unproven", {"clock": SignedClock()}),
    ("journal behind", "appliance.journal-behind", {"locked": "appliance.journal-behind"}),
]


@pytest.mark.parametrize(
    ("code", "changes"), [row[1:] for row in HELD], ids=[row[0] for row in HELD]
)
def test_what_cannot_be_judged_now_is_held_and_not_consumed(code: str, changes: Any) -> None:
    assert judge(NEXT, w.facts(**changes)) == Hold(code)


def test_next_command_is_accepted_and_moves_the_head() -> None:
    verdict = judge(NEXT, w.facts())
    assert isinstance(verdict, Accept)
    assert verdict.command == w.command()
    assert (verdict.head.epoch, verdict.head.have) == (1, 1)


def test_floor_expires_even_without_fresh_time() -> None:
    clock = SignedClock(floor=w.T0 + 48 * w.HOUR_MS)
    verdict = judge(NEXT, w.facts(clock=clock))
    assert isinstance(verdict, Refuse)
    assert verdict.code == "protocol.expired"


def test_accept_unproven_lets_the_floor_alone_decide() -> None:
    facts = w.facts(clock=SignedClock(), accept_unproven=True)
    assert isinstance(judge(NEXT, facts), Accept)


def test_a_full_queue_still_takes_a_cancel() -> None:
    assert isinstance(judge(w.signed_command(**CANCEL), w.facts(room=False)), Accept)


def test_a_retry_that_the_journal_allows_is_accepted() -> None:
    facts = w.facts(retry=lambda _ref: None)
    assert isinstance(judge(w.signed_command(retry_of=REF), facts), Accept)


def _consumed(*, known: bytes | None) -> Any:
    head = w.HEAD_0.after(digest_of(encode(w.command())))
    seen = {1: known} if known is not None else {}
    return w.facts(w.Journal(by_seq=seen), head=head)


def test_consumed_command_is_acknowledged_again() -> None:
    facts = _consumed(known=digest_of(encode(w.command())))
    assert judge(NEXT, facts) == Again(1, old=False)


def test_forgotten_command_is_acknowledged_as_old() -> None:
    assert judge(NEXT, _consumed(known=None)) == Again(1, old=True)


def test_another_command_under_a_used_seq_is_rejected() -> None:
    verdict = judge(NEXT, _consumed(known=b"x" * 32))
    assert isinstance(verdict, Reject)
    assert verdict.code == "protocol.seq-reuse"


def test_consumed_command_is_acknowledged_even_while_locked_and_unproven() -> None:
    facts = _consumed(known=digest_of(encode(w.command())))
    verdict = judge(NEXT, w.facts(head=facts.head, digest_at=facts.digest_at, proven=False))
    assert isinstance(verdict, Again)


def test_gap_asks_from_the_first_missing_one() -> None:
    far = Head(1, 4, b"h" * 32)
    assert judge(w.signed_command(far), w.facts()) == Gap(1)


def test_an_id_seen_under_another_digest_is_refused() -> None:
    journal = w.Journal(by_id={w.command().id: b"x" * 32})
    verdict = judge(NEXT, w.facts(journal))
    assert isinstance(verdict, Refuse)
    assert verdict.code == "protocol.id-reuse"


@pytest.mark.parametrize(
    ("data", "changes", "code"),
    [
        (w.signed_command(audience="site-2", epoch=9), {}, "protocol.wrong-audience"),
        (w.signed_command(epoch=0, prev=bytes(32)), {}, "protocol.epoch-old"),
        (w.signed_command(prev=bytes(32)), {"proven": False}, "protocol.fork"),
        (w.signed_command(exp=w.T0 + 1), {"proven": False}, "protocol.time-unproven"),
        (w.signed_command(exp=w.T0 + 1, op="explode"), {}, "protocol.expired"),
        (w.signed_command(op="explode"), {"policy": lambda _c: "policy.op"}, "policy.op"),
    ],
    ids=[
        "audience, epoch",
        "epoch, prev",
        "prev, time",
        "time, expiry",
        "expiry, op",
        "policy, op",
    ],
)
def test_the_earlier_check_names_the_fault(data: bytes, changes: Any, code: str) -> None:
    verdict = judge(data, w.facts(**changes))
    assert getattr(verdict, "code", None) == code


def test_a_broken_envelope_does_not_condemn_the_payload_inside() -> None:
    verdict = judge(_broken(NEXT), w.facts())
    assert isinstance(verdict, Reject)
    assert verdict.digest == name_of(_broken(NEXT)) != digest_of(encode(w.command()))


def test_an_authentic_reject_is_named_by_its_payload() -> None:
    data = w.signed_command(prev=bytes(32))
    verdict = judge(data, w.facts())
    assert isinstance(verdict, Reject)
    assert verdict.digest == parse_envelope(data, limit=10**6).digest


def test_what_may_pass_later_is_no_poison() -> None:
    passing = {"protocol.epoch-ahead", "protocol.unknown-key", "appliance.journal-behind"}
    assert POISON.isdisjoint(passing)
    assert {row[1] for row in REJECTED} - passing <= POISON
