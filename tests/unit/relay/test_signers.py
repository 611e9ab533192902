import asyncio
from typing import Any

import pytest

from protocol.control import Call, Quarantined, Reply, Statement, parse_to_signer
from relay import signers
from relay.errors import NoSigner, SignerAway, SignerSlow
from relay.mailbox import Mailbox
from relay.signers import Attachment, Signers

REQUEST = Call(call=0, method="POST", path="/v1/jobs", headers={}, body=b"{}")
FRAME = Quarantined(tenant="acme", appliance="site-1", epoch=1, seq=1, digest=b"d" * 32)


def attachment(scope: str, ends: list[Any] | None = None) -> Attachment:
    return Attachment(scope, "signer", lambda *end: (ends if ends is not None else []).append(end))


def test_own_signer_of_a_tenant_comes_before_everybodys() -> None:
    all_, every, own = Signers(expected=True), attachment("*"), attachment("acme")
    assert all_.of("acme") is None
    all_.add(every)
    assert all_.of("acme") is every
    all_.add(own)
    assert (all_.of("acme"), all_.of("other")) == (own, every)
    assert all_.any() is every


def test_newest_attachment_of_a_scope_wins_and_the_old_ones_end_does_not_remove_it() -> None:
    all_, old, new = Signers(expected=True), attachment("*"), attachment("*")
    assert all_.add(old) is None
    assert all_.add(new) is old
    all_.remove(old)
    assert all_.of("acme") is new


def said(kind: str, env: bytes, appliance: str = "site-1") -> Statement:
    return Statement(kind=kind, tenant="acme", appliance=appliance, env=env)  # type: ignore[arg-type]


def sent(signer: Attachment) -> list[bytes]:
    found = []
    while signer.outbox:
        frame = parse_to_signer(signer.outbox.take())
        assert isinstance(frame, Statement)
        found.append(frame.env)
    return found


def test_what_is_stated_while_a_signer_is_refilled_waits_behind_the_refill() -> None:
    signer = attachment("*")
    signer.hold([("acme", "site-1"), ("acme", "site-2")])
    signer.tell(said("ack", b"of the session before"))
    signer.tell(said("hello", b"hello"))
    signer.tell(said("ack", b"ack"))
    signer.tell(said("ack", b"other", "site-2"))
    signer.tell(said("hello", b"not refilled", "site-3"))
    assert sent(signer) == [b"not refilled"]
    signer.release(("acme", "site-1"), b"hello")
    assert sent(signer) == [b"ack"]
    signer.tell(said("result", b"result"))
    assert sent(signer) == [b"result"]
    signer.release(("acme", "site-2"), b"of an earlier session")
    assert sent(signer) == [b"other"]


def test_what_wants_an_answer_waits_for_no_refill() -> None:
    signer = attachment("*")
    signer.hold([("acme", "site-1")])
    signer.tell(FRAME)
    assert signer.outbox


def test_a_refill_that_takes_too_long_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "OUTBOX_BYTES", 10)
    ends: list[Any] = []
    signer = attachment("*", ends)
    signer.hold([("acme", "site-1")])
    signer.tell(said("ack", b"0123456789"))
    assert ends == []
    signer.tell(said("ack", b"0"))
    assert ends == [(1013, "relay.signer-slow")]


@pytest.mark.parametrize(("expected", "error"), [(True, SignerAway), (False, NoSigner)])
def test_missing_signer_is_away_only_if_there_should_be_one(
    expected: bool, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Signers(expected=expected).need(None)


async def test_call_is_answered_by_its_number() -> None:
    signer = attachment("*")
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(signer.call(REQUEST, seconds=60)) for _ in range(2))
        await asyncio.sleep(0)
        numbers = [parse_to_signer(signer.outbox.take()).call for _ in range(2)]  # type: ignore[union-attr]
        for number in reversed(numbers):
            signer.reply(Reply(call=number, status=200 + number, headers={}))
        signer.reply(Reply(call=99, status=200, headers={}))
    assert [first.result().status, second.result().status] == [200 + n for n in numbers]


async def test_call_ends_with_the_time_or_with_the_connection() -> None:
    signer = attachment("*")
    with pytest.raises(SignerSlow):
        await signer.call(REQUEST, seconds=0)
    asyncio.get_running_loop().call_soon(signer.end)
    with pytest.raises(SignerSlow):
        await signer.call(REQUEST, seconds=60)


def test_signer_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = []
    signer = attachment("*", ends)
    signer.outbox = Mailbox(2, 10_000)
    all_ = Signers(expected=True)
    all_.add(signer)
    for _ in range(3):
        all_.tell("acme", FRAME)
    assert ends == [(1013, "relay.signer-slow")]
    assert signers.OUTBOX_BYTES == 64 * 2**20
