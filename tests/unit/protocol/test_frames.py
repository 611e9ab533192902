"""Frames: every one survives the wire, and each direction takes its own only."""

import typing

import msgspec
import pytest

from protocol.control import (
    ApplianceHead,
    Attach,
    Attached,
    Call,
    Push,
    Pushed,
    Quarantined,
    Reply,
    Statement,
    TimeWanted,
    parse_from_signer,
    parse_to_signer,
)
from protocol.errors import BadField, Oversized
from protocol.frames import (
    MAX_FRAME,
    MAX_FRAME_TO_AGENT,
    AckFrame,
    Challenge,
    CommandFrame,
    Credit,
    EpochFrame,
    EventFrame,
    Fetch,
    Frame,
    FromAgent,
    FromRelay,
    GoingAway,
    HelloFrame,
    InventoryFrame,
    ManifestFrame,
    NackFrame,
    ReceiptFrame,
    RecordFrame,
    ResultFrame,
    Stored,
    TimeFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
    parse_from_agent,
    parse_from_relay,
)
from protocol.messages import ResultsThrough

THROUGH = ResultsThrough(journal=b"J" * 16, n=1)
HEAD = ApplianceHead(tenant="t", appliance="a", epoch=1, seq=2, results=THROUGH)
TO_AGENT: list[Frame] = [
    Challenge(challenge=b"C" * 32),
    Welcome(generation=1, results=THROUGH),
    CommandFrame(epoch=1, seq=1, env=b"e"),
    EpochFrame(env=b"e"),
    ReceiptFrame(env=b"e"),
    ManifestFrame(env=b"e"),
    RecordFrame(env=b"e"),
    TimeFrame(env=b"e"),
    Stored(results=THROUGH),
    Credit(n=1),
    GoingAway(after=1.0, spread=2.0),
]
TO_RELAY: list[Frame] = [
    HelloFrame(tenant="t", appliance="a", env=b"e"),
    Fetch(epoch=1, seq=1),
    AckFrame(env=b"e"),
    NackFrame(env=b"e"),
    InventoryFrame(env=b"e"),
    ResultFrame(env=b"e", report=b"{}"),
    EventFrame(env=b"e"),
    TimeRequest(nonce=b"N" * 16),
    Credit(n=1),
]
FROM_SIGNER: list[Frame] = [
    Attach(token="t", appliances=(HEAD,)),
    Push(push=1, kind="command", tenant="t", appliance="a", env=b"e"),
    Push(push=2, kind="manifest", tenant="t", appliance="*", env=b"e"),
    Reply(call=1, status=200, headers={}, body=b"{}"),
]
TO_SIGNER: list[Frame] = [
    Attached(appliances=(HEAD,)),
    Pushed(push=1, code="relay.backlog"),
    Statement(kind="hello", tenant="t", appliance="a", env=b"e"),
    TimeWanted(tenant="t", appliance="a", nonce=b"N" * 16),
    Call(call=1, method="POST", path="/v1/jobs", headers={"a": "b"}),
    Quarantined(tenant="t", appliance="a", epoch=1, seq=1, digest=b"d" * 32),
]


def _name(frame: Frame) -> str:
    return type(frame).__name__


@pytest.mark.parametrize("frame", TO_AGENT, ids=_name)
def test_frames_to_the_agent_survive_the_wire(frame: Frame) -> None:
    assert parse_from_relay(frame_bytes(frame)) == frame


@pytest.mark.parametrize("frame", TO_RELAY, ids=_name)
def test_frames_to_the_relay_survive_the_wire(frame: Frame) -> None:
    assert parse_from_agent(frame_bytes(frame)) == frame


@pytest.mark.parametrize("frame", FROM_SIGNER, ids=_name)
def test_frames_of_the_signer_survive_the_wire(frame: Frame) -> None:
    assert parse_from_signer(frame_bytes(frame)) == frame


@pytest.mark.parametrize("frame", TO_SIGNER, ids=_name)
def test_frames_to_the_signer_survive_the_wire(frame: Frame) -> None:
    assert parse_to_signer(frame_bytes(frame)) == frame


def test_every_frame_is_shown_here() -> None:
    assert {type(frame) for frame in TO_AGENT} == set(typing.get_args(FromRelay))
    assert {type(frame) for frame in TO_RELAY} == set(typing.get_args(FromAgent))


@pytest.mark.parametrize("frame", TO_RELAY[:-1], ids=_name)
def test_the_agent_takes_nothing_that_only_a_relay_takes(frame: Frame) -> None:
    with pytest.raises(BadField):
        parse_from_relay(frame_bytes(frame))


def test_each_direction_has_its_own_limit() -> None:
    data = frame_bytes(InventoryFrame(env=bytes(MAX_FRAME_TO_AGENT)))
    assert parse_from_agent(data)
    with pytest.raises(Oversized):
        parse_from_relay(data)
    with pytest.raises(Oversized):
        parse_from_agent(bytes(MAX_FRAME + 1))


@pytest.mark.parametrize(
    "frame",
    [
        {"t": "credit", "n": 0},
        {"t": "credit", "n": 10_001},
        {"t": "going_away", "after": float("nan"), "spread": 0.0},
        {"t": "going_away", "after": 301.0, "spread": 0.0},
        {"t": "welcome", "generation": -1},
        {"n": 1},
    ],
    ids=["no credit", "too much credit", "after nan", "away too long", "negative", "no tag"],
)
def test_numbers_out_of_range_are_refused(frame: dict[str, object]) -> None:
    with pytest.raises(BadField):
        parse_from_relay(msgspec.msgpack.encode(frame))
