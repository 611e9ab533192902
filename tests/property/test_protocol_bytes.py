"""Hostile bytes: whatever comes, only a ProtocolError may come out, and no changed bit is ever believed."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.acceptor import Accept, Again, Refuse, judge
from protocol.codec import decode, decode_plain, encode
from protocol.control import parse_from_signer, parse_to_signer
from protocol.enrol import parse_token
from protocol.errors import ProtocolError
from protocol.frames import parse_from_agent, parse_from_relay
from protocol.inbox import EpochRaise, judge_epoch, open_receipt, open_time
from protocol.keys import KeyRing
from protocol.messages import MAX_RESULT, Kind, Result
from protocol.ops import OPS, parse_args
from protocol.relay_session import RelaySession
from protocol.session import AgentSession
from protocol.signed import open_statement, parse_envelope, sign
from tests.support import protocol_world as w
from tests.support.protocol_examples import EPOCH, HEAD_1, RECEIPT, RESULT, SIGNED

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
HOSTILE = st.binary(max_size=300) | PLAIN.map(msgspec.msgpack.encode)
READERS: dict[str, Any] = {
    "frame to the agent": parse_from_relay,
    "frame to the relay": parse_from_agent,
    "frame of the signer": parse_from_signer,
    "frame to the signer": parse_to_signer,
    "plain": lambda data: decode_plain(data, limit=1000),
    "envelope": lambda data: parse_envelope(data, limit=1000),
    "manifest": lambda data: KeyRing.open(data, root=w.ROOT.public),
    "receipt": lambda data: open_receipt(data, w.facts()),
    "time": lambda data: open_time(data, w.facts()),
    "token": lambda data: parse_token(data.decode("latin-1")),
    **{f"args of {op}": lambda data, op=op, v=v: parse_args(op, v, data) for op, v in OPS},
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(data=HOSTILE)
def test_hostile_bytes_raise_only_our_errors(reader: Any, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        reader(data)


@given(data=HOSTILE)
def test_hostile_bytes_are_never_accepted(data: bytes) -> None:
    assert not isinstance(judge(data, w.facts()), Accept | Refuse | Again)
    assert not isinstance(judge_epoch(data, w.inbox(), w.facts()), EpochRaise)


@given(frames=st.lists(HOSTILE, max_size=5))
def test_hostile_bytes_close_a_session_and_raise_nothing(frames: list[bytes]) -> None:
    relay, agent = RelaySession(b"C" * 32, 0.0), AgentSession(b"J" * 16, 0, w.fresh_clock(), 0.0)
    for data in frames:
        relay.feed(data)
        agent.feed(data, boot_s=1.0)


@given(value=PLAIN)
def test_plain_values_survive_the_wire(value: Any) -> None:
    data = encode(value)
    try:
        back = decode_plain(data, limit=10**6)
    except ProtocolError:
        return
    assert encode(back) == data


COMMAND = w.signed_command()
FLIPS = st.integers(0, len(COMMAND) * 8 - 1)


def _flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8 % len(data)] ^= 1 << (bit % 8)
    return bytes(flipped)


@given(bit=FLIPS)
def test_one_flipped_bit_makes_no_command(bit: int) -> None:
    assert not isinstance(judge(_flip(COMMAND, bit), w.facts()), Accept | Refuse | Again)


@pytest.mark.parametrize(("kind", "layout", "key"), SIGNED, ids=[row[0].value for row in SIGNED])
@given(bit=st.integers(0, 2**16))
def test_one_flipped_bit_makes_no_signed_thing(kind: Kind, layout: Any, key: Any, bit: int) -> None:
    data = _flip(sign(kind, layout, key), bit)
    try:
        envelope, _ = open_statement(kind, data, type(layout), public=key.public, limit=10**6)
    except ProtocolError:
        return
    # Only `k` may differ: it is a hint where to look for the key, and no part of what was signed.
    assert envelope.p == encode(layout)
    assert envelope.k != key.kid


@given(cut=st.integers(0, len(COMMAND) - 1))
def test_no_part_of_a_command_is_a_command(cut: int) -> None:
    assert not isinstance(judge(COMMAND[:cut], w.facts()), Accept | Refuse | Again)


@given(kind=st.sampled_from(Kind), other=st.sampled_from(Kind))
def test_no_signed_thing_passes_as_another_kind(kind: Kind, other: Kind) -> None:
    rows = {row[0]: row for row in SIGNED}
    _, layout, key = rows[kind]
    data = sign(kind, layout, key)
    if other is kind:
        return
    with pytest.raises(ProtocolError):
        open_statement(other, data, type(rows[other][1]), public=key.public, limit=10**6)


@given(bit=st.integers(0, 2**14))
def test_no_flipped_bit_makes_an_epoch_or_a_receipt(bit: int) -> None:
    facts = w.facts(head=HEAD_1)
    order = _flip(sign(Kind.EPOCH, EPOCH, w.COMMAND), bit)
    assert not isinstance(judge_epoch(order, w.inbox_at(HEAD_1), facts), EpochRaise)
    with pytest.raises(ProtocolError):
        open_receipt(_flip(sign(Kind.RECEIPT, RECEIPT, w.COMMAND), bit), facts)


@given(
    n=st.integers(1, 2**63 - 1),
    ended=st.integers(0, 2**53),
    status=st.sampled_from(("succeeded", "failed", "cancelled", "refused")),
    value=st.dictionaries(
        st.text(max_size=9), st.text() | st.integers(0, 2**32) | st.booleans(), max_size=4
    ),
)
def test_results_survive_the_wire(n: int, ended: int, status: Any, value: dict[str, Any]) -> None:
    output = msgspec.structs.replace(RESULT.outputs[0], value=value)
    result = msgspec.structs.replace(RESULT, n=n, ended=ended, status=status, outputs=(output,))
    assert decode(encode(result), Result, limit=MAX_RESULT) == result
