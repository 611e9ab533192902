"""A hostile relay: nothing that it makes up runs, nothing honest is lost or stuck, memory stays bounded.

The short form of the hostile-courier run; the seed decides what comes, in which order and how often.
"""

import asyncio
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.acceptor import Head
from protocol.codec import encode
from protocol.frames import CommandFrame, frame_bytes
from protocol.messages import MAX_COMMAND, Kind
from protocol.ops import SweepArgs
from protocol.signed import Envelope, SigningKey, parse_envelope, seal_envelope, sign
from tests.support import protocol_world as w
from tests.support.agent_relay_double import Double, relay
from tests.support.agent_world import StepStage, agent, prepare

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]
HONEST = 40
ROUNDS = 60
FLOOD = 3000
MAX_GROWTH_KIB = 48 * 1024

Forge = Callable[[Head, random.Random], bytes]


def _wrap(payload: bytes, key: SigningKey = w.COMMAND, kind: Kind = Kind.COMMAND) -> bytes:
    return seal_envelope(kind, payload, key)


def _flipped(head: Head, rng: random.Random) -> bytes:
    data = bytearray(w.signed_command(head))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _self_signed(head: Head, _rng: random.Random) -> bytes:
    command = w.command(head)
    forged = sign(Kind.COMMAND, command, w.key_of("mallory"))
    envelope = parse_envelope(forged, limit=MAX_COMMAND)
    return encode(Envelope(v=1, k=w.COMMAND.kid, p=envelope.p, s=envelope.s))


def _bomb(_head: Head, _rng: random.Random) -> bytes:
    return _wrap(b"\x81\xa1v" + b"\x91" * 5000 + b"\xc0")


HOSTILE: dict[str, Forge] = {
    "flipped": _flipped,
    "another key": lambda head, _: sign(Kind.COMMAND, w.command(head), w.key_of("mallory")),
    "another key's signature": _self_signed,
    "time key": lambda head, _: sign(Kind.COMMAND, w.command(head), w.TIME),
    "wrong kind": lambda head, _: sign(Kind.RECEIPT, w.command(head), w.COMMAND),
    "wrong audience": lambda head, _: w.signed_command(head, audience="site-2"),
    "wrong tenant": lambda head, _: w.signed_command(head, tenant="other"),
    "fork": lambda head, _: w.signed_command(head, prev=bytes(32)),
    "old epoch": lambda head, _: w.signed_command(head, epoch=0),
    "epoch ahead": lambda head, _: w.signed_command(head, epoch=9),
    "beyond its key": lambda head, _: w.signed_command(head, exp=w.T0 + 11 * w.YEAR_MS),
    "oversized": lambda head, _: w.signed_command(head, args=bytes(MAX_COMMAND - 100)) + bytes(900),
    "depth bomb": _bomb,
    "array bomb": lambda _head, _rng: b"\xdd\xff\xff\xff\xff",
    "duplicate key": lambda _head, _rng: _wrap(b"\x82\xa1v\x01\xa1v\x01"),
    "empty": lambda _head, _rng: b"",
    "garbage": lambda _head, rng: rng.randbytes(rng.randrange(1, 400)),
    "far ahead": lambda head, _: w.signed_command(Head(head.epoch, head.have + 500, head.hash)),
}


async def test_every_kind_of_hostile_envelope_is_refused_and_its_seq_stays_free(
    tmp_path: Path,
) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    rng = random.Random(1)
    async with relay() as double, agent(prepare(tmp_path, double.url), stage) as app:
        await double.until(lambda: app.orders.trust.fresh, "signed time")
        for forge in HOSTILE.values():
            await double.send_command(forge(double.line.head, rng), seq=double.line.head.have + 1)
        order = double.line.upload()
        await double.push(order)
        assert (await double.result(order[0])).status == "succeeded"
        counts = dict(app.orders.counts)
        assert app.orders.state.head.have == 1
    refused = sum(count for code, count in counts.items() if code.startswith("protocol."))
    assert refused >= len(HOSTILE)
    codes = {nack.code for nack in double.nacks}
    assert codes >= {
        "protocol.bad-signature",
        "protocol.unknown-key",
        "protocol.wrong-role",
        "protocol.wrong-audience",
        "protocol.wrong-tenant",
        "protocol.fork",
        "protocol.epoch-old",
        "protocol.epoch-ahead",
        "protocol.key-not-valid",
        "protocol.oversized",
        "protocol.depth",
        "protocol.malformed",
    }


@pytest.mark.parametrize("seed", range(3))
async def test_honest_orders_run_once_and_in_order_among_hostile_ones(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    stage = StepStage(tmp_path / "effects", units=1)
    async with (
        relay() as double,
        agent(prepare(tmp_path, double.url, limits={"slots": 1}), stage) as app,
    ):
        await double.until(lambda: app.orders.trust.fresh, "signed time")
        orders = [double.line.upload(f"disk{i:02}") for i in range(HONEST)]
        by_seq = {command.seq: envelope for command, envelope in orders}
        sent: list[int] = []
        heads = [w.HEAD_0]
        for _, envelope in orders:
            heads.append(heads[-1].after(parse_envelope(envelope, limit=MAX_COMMAND).digest))
        for _ in range(ROUNDS):
            await _mischief(double, rng, heads, by_seq, sent)
        await double.push(*orders)
        await double.until(lambda: len(double.results) == HONEST, "all results")
        assert app.orders.state.head.have == HONEST
    starts = [line for line in stage.lines() if line.endswith("unit 0")]
    assert starts == [f"disk{i:02} unit 0" for i in range(HONEST)]
    assert double.numbers() == list(range(1, HONEST + 1))


async def _mischief(
    double: Double,
    rng: random.Random,
    heads: list[Head],
    by_seq: dict[int, bytes],
    sent: list[int],
) -> None:
    """Send a hostile, early, late or doubled envelope, or cut the connection."""
    await double.until(lambda: double.connected, "a connection")
    have = double.highest[1]
    match rng.randrange(8):
        case 0 | 1 | 2 | 3:
            forge = rng.choice(list(HOSTILE.values()))
            await double.send_command(forge(heads[min(have, len(heads) - 1)], rng), seq=have + 1)
        case 4:  # too early
            seq = rng.randrange(1, len(by_seq) + 1)
            await double.send_command(by_seq[seq], seq=seq)
        case 5 if sent:  # again
            seq = rng.choice(sent)
            await double.send_command(by_seq[seq], seq=seq)
        case 6:  # torn
            frame = frame_bytes(CommandFrame(epoch=1, seq=have + 1, env=by_seq[1]))
            connections = double.connections
            await double.send_raw(frame[: rng.randrange(1, len(frame))])
            await double.until(lambda: double.connections > connections, "a new connection")
        case _:
            if have < len(by_seq):
                await double.send_command(by_seq[have + 1], seq=have + 1)
                sent.append(have + 1)
                await double.until(lambda: double.highest[1] > have, "an ack")


async def test_a_flood_of_hostile_frames_leaves_no_growth_and_few_answers(tmp_path: Path) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    rng = random.Random(7)
    frames = [forge(w.HEAD_0, rng) for name, forge in HOSTILE.items() if name != "oversized"]
    async with relay() as double, agent(prepare(tmp_path, double.url), stage) as app:
        await double.until(lambda: app.orders.trust.fresh, "signed time")
        size = app.journal.path.stat().st_size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(FLOOD):
            await double.send_command(frames[number % len(frames)], seq=1)
            if number % 100 == 0:
                await asyncio.sleep(0)
        order = double.line.order("sweep", SweepArgs())
        await double.push(order)
        await double.result(order[0])
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        answers = len(double.nacks)
        assert app.journal.path.stat().st_size <= size + 256 * 1024
    assert grown < MAX_GROWTH_KIB
    assert answers < FLOOD / 4
    assert stage.lines() == []
