"""The agent's end of a connection: what may come when, what is asked for, and what an unsigned frame can do."""

from typing import Any

import pytest

from protocol.clock import SignedClock
from protocol.errors import OutOfOrder
from protocol.frames import (
    CLOSE_GOING_AWAY,
    CLOSE_PROTOCOL,
    MAX_DELAY_S,
    AckFrame,
    Challenge,
    CommandFrame,
    Credit,
    EpochFrame,
    Fetch,
    Frame,
    GoingAway,
    HelloFrame,
    ManifestFrame,
    ReceiptFrame,
    RecordFrame,
    ResultFrame,
    Stored,
    TimeFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
    parse_from_agent,
)
from protocol.messages import ResultsThrough
from protocol.session import FRAMES, AgentSession, SessionState
from protocol.session_events import (
    Came,
    Close,
    ComeBack,
    FetchWanted,
    HelloWanted,
    ResultsWanted,
    TimeWanted,
    Welcomed,
    cap_delay,
)

LIFE = b"J" * 16
HELLO = HelloFrame(tenant="acme", appliance="site-1", env=b"hello")
SAMPLES: dict[type[Frame], Frame] = {
    Challenge: Challenge(challenge=b"C" * 32),
    Welcome: Welcome(generation=1),
    TimeFrame: TimeFrame(env=b"t"),
    ManifestFrame: ManifestFrame(env=b"m"),
    RecordFrame: RecordFrame(env=b"r"),
    ReceiptFrame: ReceiptFrame(env=b"r"),
    EpochFrame: EpochFrame(env=b"e"),
    CommandFrame: CommandFrame(epoch=1, seq=1, env=b"c"),
    Stored: Stored(results=ResultsThrough(journal=LIFE, n=1)),
    Credit: Credit(n=9),
    GoingAway: GoingAway(after=1.0, spread=2.0),
}


def _session(results: int = 0) -> AgentSession:
    return AgentSession(LIFE, results, SignedClock(), 0.0)


def _feed(session: AgentSession, frame: Frame, boot_s: float = 1.0) -> list[Any]:
    return session.feed(frame_bytes(frame), boot_s=boot_s)


def _at(state: SessionState, results: int = 0) -> AgentSession:
    session = _session(results)
    steps = [
        lambda: _feed(session, SAMPLES[Challenge]),
        lambda: (
            session.send_hello(HELLO, nonce=b"N" * 16, boot_s=1.0),
            _feed(session, SAMPLES[Welcome]),
        ),
        lambda: session.proved(b"N" * 16, epoch=1, have=0, boot_s=1.0),
        lambda: _feed(session, SAMPLES[GoingAway]),
    ]
    order = [
        SessionState.CONNECTING,
        SessionState.CHALLENGED,
        SessionState.PROVING,
        SessionState.OPEN,
        SessionState.DRAINING,
    ]
    if state is SessionState.CLOSED:
        session.feed(b"junk", boot_s=1.0)
        return session
    for step in steps[: order.index(state)]:
        step()
    assert session.state is state
    session.outgoing.clear()
    return session


def _sent(session: AgentSession) -> list[Any]:
    frames = [parse_from_agent(data) for data in session.outgoing]
    session.outgoing.clear()
    return frames


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", SessionState, ids=str)
def test_each_state_takes_the_frames_of_the_table_only(
    state: SessionState, kind: type[Frame]
) -> None:
    session = _at(state)
    events = _feed(session, SAMPLES[kind])
    if kind in FRAMES[state]:
        assert session.state is not SessionState.CLOSED
    else:
        assert events == [Close(CLOSE_PROTOCOL, "protocol.out-of-order")]
        assert session.state is SessionState.CLOSED


def test_junk_closes_with_its_code() -> None:
    assert _session().feed(b"\xc1", boot_s=0.0) == [Close(CLOSE_PROTOCOL, "protocol.malformed")]


def test_the_way_to_the_first_command() -> None:
    session = _session()
    assert _feed(session, SAMPLES[Challenge]) == [HelloWanted(b"C" * 32)]
    session.send_hello(HELLO, nonce=b"N" * 16, boot_s=1.0)
    assert _feed(session, SAMPLES[Welcome]) == [Welcomed(Welcome(generation=1))]
    assert _sent(session) == [HELLO]
    assert _feed(session, SAMPLES[TimeFrame]) == [Came(TimeFrame(env=b"t"))]
    assert session.proved(b"N" * 16, epoch=3, have=7, boot_s=1.0)
    credit, fetch = _sent(session)
    assert isinstance(credit, Credit)
    assert fetch == Fetch(epoch=3, seq=8)


def test_time_of_another_session_proves_nothing() -> None:
    session = _at(SessionState.PROVING)
    assert not session.proved(b"O" * 16, epoch=1, have=0, boot_s=1.0)
    assert session.state is SessionState.PROVING
    assert not session.outgoing


def test_accept_unproven_fetches_at_once() -> None:
    session = _at(SessionState.PROVING)
    session.unproven(epoch=1, have=0, boot_s=1.0)
    assert Fetch(epoch=1, seq=1) in _sent(session)


def test_hello_before_the_challenge_is_a_defect() -> None:
    with pytest.raises(OutOfOrder):
        _session().send_hello(HELLO, nonce=b"N" * 16, boot_s=0.0)


@pytest.mark.parametrize("state", [SessionState.CONNECTING, SessionState.CHALLENGED], ids=str)
def test_a_silent_relay_is_left(state: SessionState) -> None:
    session = _at(state)
    due = session.next_deadline(boot_s=1.0)
    assert session.timeout(boot_s=due - 0.1, wall_s=0.0) == []
    assert session.timeout(boot_s=due, wall_s=0.0) == [
        Close(CLOSE_PROTOCOL, "protocol.handshake-timeout")
    ]


def test_while_proving_the_time_is_asked_again_and_again() -> None:
    session = _at(SessionState.PROVING)
    assert session.timeout(boot_s=10.9, wall_s=10.9) == []
    assert session.timeout(boot_s=11.0, wall_s=11.0) == [TimeWanted()]
    session.ask_time(b"M" * 16, boot_s=11.0)
    assert _sent(session) == [TimeRequest(nonce=b"M" * 16)]
    assert session.timeout(boot_s=20.9, wall_s=20.9) == []
    assert session.timeout(boot_s=21.0, wall_s=21.0) == [TimeWanted()]


def test_a_gap_is_fetched_once_and_looked_at_again_later() -> None:
    session = _at(SessionState.OPEN)
    for _ in range(5):
        session.fetch(epoch=1, have=4, boot_s=2.0)
    assert _sent(session) == [Fetch(epoch=1, seq=5)]
    assert session.timeout(boot_s=6.9, wall_s=6.9) == []
    assert session.timeout(boot_s=7.0, wall_s=7.0) == [FetchWanted()]
    session.fetch(epoch=1, have=4, boot_s=7.0)
    assert _sent(session) == [Fetch(epoch=1, seq=5)]


def test_what_was_held_is_fetched_when_the_cause_is_gone() -> None:
    session = _at(SessionState.OPEN)
    session.release(epoch=1, have=0, boot_s=2.0)
    assert _sent(session) == []
    session.hold()
    session.release(epoch=1, have=0, boot_s=2.0)
    session.release(epoch=1, have=0, boot_s=2.0)
    assert _sent(session) == [Fetch(epoch=1, seq=1)]


# --- results


def test_results_above_the_relays_are_sent_in_order_within_the_window() -> None:
    session = _at(SessionState.CHALLENGED, results=9)
    session.send_hello(HELLO, nonce=b"N" * 16, boot_s=1.0)
    welcome = Welcome(generation=1, results=ResultsThrough(journal=LIFE, n=2))
    assert ResultsWanted() in _feed(session, welcome)
    assert session.next_results() == (2, 4)
    for n in range(3, 7):
        session.send_result(n, ResultFrame(env=b"r"))
    assert session.next_results() is None
    assert _feed(session, Stored(results=ResultsThrough(journal=LIFE, n=5))) == [ResultsWanted()]
    assert session.next_results() == (6, 3)


def test_a_result_out_of_turn_is_a_defect() -> None:
    session = _at(SessionState.PROVING, results=3)
    with pytest.raises(OutOfOrder):
        session.send_result(2, ResultFrame(env=b"r"))


def test_credit_widens_the_window_and_never_below_the_floor() -> None:
    session = _at(SessionState.PROVING, results=99)
    _feed(session, Credit(n=50))
    assert session.next_results() == (0, 50)
    _feed(session, Credit(n=1))
    assert session.next_results() == (0, 4)


def test_a_relay_that_claims_results_that_do_not_exist_stops_nothing() -> None:
    session = _at(SessionState.CHALLENGED, results=3)
    session.send_hello(HELLO, nonce=b"N" * 16, boot_s=1.0)
    _feed(session, Welcome(generation=1, results=ResultsThrough(journal=LIFE, n=2**40)))
    assert session.set_results(journal=LIFE, last=4) == [ResultsWanted()]
    _feed(session, Stored(results=ResultsThrough(journal=LIFE, n=2**40)))
    assert session.next_results() == (3, 1)


def test_results_of_another_life_count_from_the_start() -> None:
    session = _at(SessionState.OPEN, results=3)
    assert session.set_results(journal=b"K" * 16, last=2) == [ResultsWanted()]
    assert session.next_results() == (0, 2)
    assert _feed(session, Stored(results=ResultsThrough(journal=LIFE, n=3))) == [ResultsWanted()]


def test_statements_wait_for_the_welcome() -> None:
    session = _at(SessionState.CHALLENGED)
    session.send(AckFrame(env=b"a"))
    assert not session.outgoing
    session = _at(SessionState.PROVING)
    session.send(AckFrame(env=b"a"))
    assert _sent(session) == [AckFrame(env=b"a")]


# --- going away


def test_going_away_drains_and_then_closes() -> None:
    session = _at(SessionState.OPEN)
    assert _feed(session, GoingAway(after=1.0, spread=2.0), 5.0) == [ComeBack(1.0, 2.0)]
    assert session.next_deadline(boot_s=5.0) == 10.0
    assert session.timeout(boot_s=10.0, wall_s=0.0) == [
        Close(CLOSE_GOING_AWAY, "protocol.going-away")
    ]


@pytest.mark.parametrize(
    ("after", "spread"),
    [(0, 0), (300, 300), (1e9, 1e9), (-5, 10), (float("nan"), float("nan")), (10, float("inf"))],
)
def test_no_frame_keeps_an_agent_away_for_long(after: float, spread: float) -> None:
    capped = cap_delay(after, spread)
    assert 0 <= capped.after <= capped.after + capped.spread <= MAX_DELAY_S
