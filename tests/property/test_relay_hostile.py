"""Hostile agents: whatever comes before or after the hello moves counters, stores nothing and leaves no growth."""

import gc
import tracemalloc
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.frames import (
    CLOSE_PROTOCOL,
    AckFrame,
    Challenge,
    Credit,
    Fetch,
    HelloFrame,
    ResultFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
)
from protocol.messages import Ack, Kind
from protocol.relay_session import Claimed, RelaySession, RelayState, Stated
from protocol.session_events import Close
from protocol.signed import parse_envelope, sign
from relay.channel import UNVERIFIED_BYTES
from relay.config import Limits
from relay.control import MAX_UNATTACHED
from tests.support import protocol_world as w
from tests.support.relay_world import AgentDouble, commands, result, running, until

FRAMES = 100_000
GROWTH = 64 * 1024
"""Bytes that may stay: caches of the interpreter."""

HONEST = [
    frame_bytes(Fetch(epoch=1, seq=1)),
    frame_bytes(Credit(n=10_000)),
    frame_bytes(TimeRequest(nonce=b"n" * 16)),
    frame_bytes(AckFrame(env=sign(Kind.ACK, Ack(epoch=1, have=9, head=b"h" * 32), w.DEVICE))),
    frame_bytes(ResultFrame(env=sign(Kind.RESULT, result(1, commands(1)[0]), w.DEVICE))),
]
BOMBS = [
    b"",
    b"\xc1",
    b"\x91" * 200_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x82\xa1t\xa4fet\x68\xa1t\xa4fet\x68",
    b"\x81\xa1t\xa5hello",
    b"\xc7\x01\x00\x00",
]


def opened() -> RelaySession:
    session = RelaySession(challenge=b"C" * 32, opened_s=0.0)
    session.feed(hello_frame())
    session.identify(w.DEVICE.public)
    session.welcome(Welcome(generation=1))
    session.outgoing.clear()
    return session


def hello_frame() -> bytes:
    env = sign(Kind.HELLO, w.hello(), w.DEVICE)
    return frame_bytes(HelloFrame(tenant=w.TENANT, appliance=w.APPLIANCE, env=env))


@given(data=st.one_of(st.binary(max_size=300), st.sampled_from(BOMBS), st.sampled_from(HONEST)))
def test_nothing_but_a_hello_opens_a_connection(data: bytes) -> None:
    session = RelaySession(challenge=b"C" * 32, opened_s=0.0)
    events = session.feed(data)
    assert all(isinstance(event, Close) for event in events)
    assert session.state is RelayState.CLOSED


@given(
    index=st.integers(0, len(HONEST) - 1),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_flipped_bit_never_makes_a_statement(index: int, where: float, bit: int) -> None:
    honest = HONEST[index]
    broken = bytearray(honest)
    broken[int(where * len(broken))] ^= 1 << bit
    session = opened()
    for event in session.feed(bytes(broken)):
        if isinstance(event, Stated):  # what is not signed changed: the key hint, the routing
            assert parse_envelope(event.env, limit=2**20).p in honest


def test_hundred_thousand_hostile_frames_leave_no_growth() -> None:
    claims = 0
    forged = frame_bytes(HelloFrame(tenant="acme", appliance="site-1", env=b"x" * 500))
    hostile = [*BOMBS[:2], *BOMBS[3:], *HONEST, forged]

    def burst(count: int) -> None:
        nonlocal claims
        for n in range(count):
            session = RelaySession(challenge=b"C" * 32, opened_s=0.0)
            events = session.feed(hostile[n % len(hostile)])
            if isinstance(events[0], Claimed):
                claims += 1
                assert isinstance(session.identify(w.DEVICE.public)[0], Close)
            assert session.state is RelayState.CLOSED

    burst(1000)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        burst(FRAMES)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert claims > 0
    assert after - before < GROWTH


@pytest.mark.e2e
async def test_flood_over_the_wire_is_cut_and_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.know_appliance()
        for frame in (*BOMBS, *HONEST, b"\x00" * 200_000):
            async with world.http.ws_connect(f"{world.url}/v1/channel", max_msg_size=0) as socket:
                agent = AgentDouble(socket)
                await agent.send(frame)
                await agent.closed()
        await until(lambda: world.relay.channel.unverified == 0)
        assert len(world.relay.shared.agents) == 0
        view = await world.get(f"/v1/appliances/{w.APPLIANCE}")
        assert (view["connected"], view["generation"], view["have"]) == (False, 0, 0)
        async with world.agent() as agent:  # and the honest one still gets in
            assert agent.welcome is not None


@pytest.mark.e2e
async def test_connections_without_a_hello_are_limited_in_number(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(unverified=2)) as world:
        sockets = [await world.http.ws_connect(f"{world.url}/v1/channel") for _ in range(3)]
        assert world.relay.channel.unverified == 2
        oldest, *others = [AgentDouble(socket) for socket in sockets]
        assert await oldest.closed() == (aiohttp.WSCloseCode.ABNORMAL_CLOSURE, "")
        for agent in others:
            await agent.expect(Challenge)
            await agent.socket.close()
        await until(lambda: world.relay.channel.unverified == 0)


@pytest.mark.e2e
async def test_message_that_a_stranger_never_ends_is_cut_before_it_costs_memory(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.http.ws_connect(f"{world.url}/v1/channel", max_msg_size=0) as socket:
            (wire,) = world.door._wires
            assert socket._writer is not None
            transport = socket._writer.transport
            transport.write(b"\x82\xff" + (4 * 2**20).to_bytes(8) + bytes(4))
            transport.write(bytes(UNVERIFIED_BYTES))
            await until(lambda: wire not in world.door._wires)
        cut = 'relay_connections_cut_total{reason="flood"} 1.0'
        assert cut in world.relay.shared.metrics.text().decode()
        async with world.agent() as agent:  # a known one is heard to the end
            await agent.send(frame_bytes(ResultFrame(env=b"x" * 2**20)))
            assert await agent.closed() == (CLOSE_PROTOCOL, "protocol.oversized")


@pytest.mark.e2e
async def test_connections_that_never_attach_do_not_keep_the_signer_out(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        silent = [
            await world.http.ws_connect(f"{world.url}/v1/control") for _ in range(MAX_UNATTACHED)
        ]
        async with world.signer() as signer:
            assert signer.attached is not None
            assert len(world.relay.control._waiting) == MAX_UNATTACHED - 1
            assert (await silent[0].receive()).type is not aiohttp.WSMsgType.CLOSE
        for socket in silent:
            await socket.close()
