"""The relay's end of a connection: who is let in, what is delivered, and what a device may state."""

import hashlib
from typing import Any

import pytest

from protocol.errors import OutOfOrder
from protocol.frames import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    AckFrame,
    CommandFrame,
    Credit,
    EventFrame,
    Fetch,
    Frame,
    HelloFrame,
    ReceiptFrame,
    ResultFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
    parse_from_relay,
)
from protocol.messages import Ack, Kind
from protocol.relay_session import (
    Claimed,
    Fetched,
    RelaySession,
    RelayState,
    Stated,
    TimeAsked,
    Verified,
)
from protocol.session_events import Close
from protocol.signed import SigningKey, sign
from tests.support import protocol_world as w


def _session() -> RelaySession:
    session = RelaySession(b"C" * 32, 0.0)
    session.outgoing.clear()
    return session


def _hello(key: SigningKey = w.DEVICE, *, appliance: str = w.APPLIANCE, **changes: Any) -> Frame:
    env = sign(Kind.HELLO, w.hello(**changes), key)
    return HelloFrame(tenant=w.TENANT, appliance=appliance, env=env)


def _feed(session: RelaySession, frame: Frame) -> list[Any]:
    return session.feed(frame_bytes(frame))


def _open() -> RelaySession:
    session = _session()
    _feed(session, _hello())
    session.identify(w.DEVICE.public)
    session.welcome(Welcome(generation=1))
    session.outgoing.clear()
    return session


def test_the_relay_speaks_first() -> None:
    frame = parse_from_relay(RelaySession(b"C" * 32, 0.0).outgoing[0])
    assert getattr(frame, "challenge", None) == b"C" * 32


def test_a_device_that_signs_our_challenge_is_let_in() -> None:
    session = _session()
    assert _feed(session, _hello()) == [Claimed(w.TENANT, w.APPLIANCE)]
    (verified,) = session.identify(w.DEVICE.public)
    assert isinstance(verified, Verified)
    assert verified.hello == w.hello()
    session.welcome(Welcome(generation=2), window=32)
    assert [parse_from_relay(data) for data in session.outgoing] == [
        Welcome(generation=2),
        Credit(n=32),
    ]


@pytest.mark.parametrize(
    ("hello", "key"),
    [
        (_hello(), None),
        (_hello(w.OTHER_DEVICE), w.DEVICE.public),
        (_hello(), bytes(32)),
        (_hello(challenge=b"D" * 32), w.DEVICE.public),
        (_hello(appliance="site-2"), w.DEVICE.public),
    ],
    ids=["unknown", "other device", "weak key", "other challenge", "other name outside"],
)
def test_everybody_else_is_refused_alike(hello: Frame, key: bytes | None) -> None:
    session = _session()
    _feed(session, hello)
    assert session.identify(key) == [Close(CLOSE_REFUSED, "protocol.not-authentic")]
    assert session.state is RelayState.CLOSED
    with pytest.raises(OutOfOrder):
        session.welcome(Welcome(generation=1))


@pytest.mark.parametrize(
    "frame",
    [Fetch(epoch=1, seq=1), AckFrame(env=b"a"), Credit(n=1)],
    ids=["fetch", "ack", "credit"],
)
def test_nothing_but_a_hello_comes_first(frame: Frame) -> None:
    assert _feed(_session(), frame) == [Close(CLOSE_PROTOCOL, "protocol.out-of-order")]


def test_a_second_hello_is_out_of_order() -> None:
    assert _feed(_open(), _hello()) == [Close(CLOSE_PROTOCOL, "protocol.out-of-order")]


def test_a_large_frame_before_the_hello_is_not_even_decoded() -> None:
    data = frame_bytes(HelloFrame(tenant="a", appliance="a", env=bytes(70_000)))
    assert _session().feed(data) == [Close(CLOSE_PROTOCOL, "protocol.oversized")]


def test_a_silent_agent_is_left() -> None:
    session = _session()
    due = session.next_deadline()
    assert due is not None
    assert session.timeout(boot_s=due - 0.1) == []
    assert session.timeout(boot_s=due) == [Close(CLOSE_PROTOCOL, "protocol.handshake-timeout")]
    assert _open().next_deadline() is None


# --- delivery


def _deliver(session: RelaySession) -> tuple[int, int] | None:
    wanted = session.next_wanted()
    if wanted is not None:
        session.send_command(CommandFrame(epoch=wanted[0], seq=wanted[1], env=b"c"))
    return wanted


def test_commands_flow_from_the_fetch_within_the_window() -> None:
    session = _open()
    assert session.next_wanted() is None
    assert _feed(session, Fetch(epoch=2, seq=5)) == [Fetched(2, 5)]
    assert [_deliver(session) for _ in range(5)] == [(2, 5), (2, 6), (2, 7), (2, 8), None]
    _feed(session, AckFrame(env=_ack(2, 6)))
    assert [_deliver(session) for _ in range(3)] == [(2, 9), (2, 10), None]


def test_credit_widens_the_window() -> None:
    session = _open()
    _feed(session, Credit(n=64))
    _feed(session, Fetch(epoch=1, seq=1))
    assert sum(_deliver(session) is not None for _ in range(100)) == 64


def test_a_fetch_goes_back_to_the_gap() -> None:
    session = _open()
    _feed(session, Fetch(epoch=1, seq=1))
    for _ in range(3):
        _deliver(session)
    _feed(session, Fetch(epoch=1, seq=2))
    assert _deliver(session) == (1, 2)


def test_an_ack_of_another_epoch_moves_nothing() -> None:
    session = _open()
    _feed(session, Fetch(epoch=1, seq=1))
    for _ in range(4):
        _deliver(session)
    _feed(session, AckFrame(env=_ack(0, 99)))
    assert session.next_wanted() is None


def test_a_command_out_of_turn_is_a_defect() -> None:
    session = _open()
    _feed(session, Fetch(epoch=1, seq=1))
    with pytest.raises(OutOfOrder):
        session.send_command(CommandFrame(epoch=1, seq=2, env=b"c"))


def test_nothing_is_sent_to_who_was_not_let_in() -> None:
    session = _session()
    session.send(ReceiptFrame(env=b"r"))
    assert not session.outgoing


# --- statements


def _ack(epoch: int, have: int, key: SigningKey = w.DEVICE) -> bytes:
    return sign(Kind.ACK, Ack(epoch=epoch, have=have, head=bytes(32)), key)


def _result(**changes: Any) -> bytes:
    return sign(Kind.RESULT, w.result(**changes), w.DEVICE)


def test_a_verified_statement_is_handed_on_untouched() -> None:
    env = _ack(1, 1)
    (stated,) = _feed(_open(), AckFrame(env=env))
    assert stated == Stated(Ack(epoch=1, have=1, head=bytes(32)), env)


def test_a_result_comes_with_its_own_report() -> None:
    report = b'{"ok":true}'
    env = _result(report_digest=hashlib.sha256(report).digest())
    (stated,) = _feed(_open(), ResultFrame(env=env, report=report))
    assert stated.report == report


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (AckFrame(env=_ack(1, 1, w.OTHER_DEVICE)), "protocol.bad-signature"),
        (EventFrame(env=_ack(1, 1)), "protocol.bad-signature"),
        (AckFrame(env=b"junk"), "protocol.malformed"),
        (ResultFrame(env=_result(appliance="site-2")), "protocol.bad-field"),
        (ResultFrame(env=_result(), report=b"another"), "protocol.bad-field"),
    ],
    ids=["other device", "other kind", "junk", "other appliance", "other report"],
)
def test_a_false_statement_ends_the_connection(frame: Frame, code: str) -> None:
    assert _feed(_open(), frame) == [Close(CLOSE_PROTOCOL, code)]


def test_the_time_is_asked_for() -> None:
    assert _feed(_open(), TimeRequest(nonce=b"N" * 16)) == [TimeAsked(b"N" * 16)]
