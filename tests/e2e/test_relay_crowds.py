"""Many strangers at the relay's port: who has to go, who is never hit, and how little of it the log tells."""

import contextlib
import resource
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay import door as door_module
from relay.app import raise_descriptor_limit, serving
from relay.config import Limits
from relay.door import Door, listen
from relay.wire import KEEP_S, STRANGER_S
from tests.e2e.test_relay_door import HALF_HEAD, KEY, Clock, Raw, later
from tests.support.relay_world import World, running, until

pytestmark = pytest.mark.e2e

UPGRADE = (
    b"GET /v1/channel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SPARE = 700
"""Files that a test's process has open besides idle connections: their relay's ends, and whatever else."""
SCRAPE_S = 15.0


async def test_strangers_of_one_address_push_each_other_out(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(strangers_per_address=3)) as world:
        await world.know_appliance()
        async with world.agent():
            known = await Raw.to(world, b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n" + KEY + b"\r\n")
            assert (await known.answer())[0] == 200
            crowd = []
            for n in range(20):
                crowd.append(await Raw.to(world, HALF_HEAD))
                await until(lambda n=n: len(world.door.lobby) == min(n + 1, 3))  # type: ignore[misc]
            for raw in crowd[:17]:
                assert await raw.rest() == b""
            assert await world.get("/v1/jobs") == {"items": [], "next": None}
            known.writer.write(b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n" + KEY + b"\r\n")
            assert (await known.answer())[0] == 200
            assert len(world.relay.shared.agents) == 1
            for raw in (known, *crowd[17:]):
                raw.writer.close()


async def test_idle_connections_leave_room_for_a_caller(tmp_path: Path) -> None:
    raise_descriptor_limit()
    many = min(2000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)
    most = Limits().strangers_per_address
    assert many > most, "this machine lets a process open too few files"
    async with running(tmp_path) as world:
        idle = [await Raw.to(world) for _ in range(many)]
        await until(lambda: len(world.door.lobby) == most)
        await world.get("/v1/jobs")
        for raw in idle:
            raw.writer.close()
        await until(lambda: not len(world.door.lobby))


async def test_flood_of_channels_from_two_addresses_does_not_shut_out_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "SWEEP_S", 3600)  # only the test sweeps
    limits = Limits(unverified=20, strangers_per_address=10)
    async with running(tmp_path, limits=limits) as world:
        await world.know_appliance()
        crowd = [
            await Raw.to(world, UPGRADE, source=source)
            for source in ("127.0.0.2", "127.0.0.3")
            for _ in range(limits.strangers_per_address)
        ]
        await until(lambda: world.relay.channel.unverified == limits.unverified)
        with capture_logs() as lines:
            for _ in range(10):
                async with world.agent():
                    pass
            crowd += [await Raw.to(world, UPGRADE, source=f"127.0.1.{n}") for n in range(1, 31)]
            for raw in crowd[:30]:
                with contextlib.suppress(ConnectionError):
                    await raw.reader.read()
            world.door.sweep()
        told = [line for line in lines if line["log_level"] == "warning"]
        assert [(line["event"], line["reason"]) for line in told] == [
            ("connections cut", "crowded")
        ]
        assert world.relay.channel.unverified == limits.unverified
        for raw in crowd:
            raw.writer.close()


async def test_flood_of_garbage_does_not_fill_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "SWEEP_S", 3600)  # only the test sweeps
    async with running(tmp_path) as world:
        with capture_logs() as lines:
            for _ in range(100):
                raw = await Raw.to(world, b"SEC<RET> / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b"relay.bad-http" in await raw.rest()
            world.door.sweep()
    assert [line["event"] for line in lines[:-1]] == ["bad request"] * door_module.LINES_A_SWEEP
    assert lines[-1]["count"] == 100 - door_module.LINES_A_SWEEP


# --- whoever asks the same again and again, and needs no key ---


async def test_health_check_that_keeps_its_connection_is_no_news(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.door.clock = Clock()
        raw = await Raw.to(world)
        with capture_logs() as lines:
            for _ in range(int(world.door.stranger_s / SCRAPE_S)):
                assert await _ask(world.door, raw, b"/healthz") == 200
                later(world, SCRAPE_S)
            later(world, SCRAPE_S)
            assert await raw.rest() == b""
        assert lines == []
        assert b"relay_connections_cut_total{" not in world.relay.shared.metrics.text()


async def test_stranger_in_a_head_at_the_end_of_his_time_is_cut(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        world.door.clock = Clock()
        raw = await Raw.to(world)
        assert await _ask(world.door, raw, b"/healthz") == 200
        (wire,) = world.door._wires
        world.door.clock.now = world.door.stranger_s - 1
        raw.writer.write(HALF_HEAD)
        await until(lambda: wire._head_bytes == len(HALF_HEAD))
        with capture_logs() as lines:
            later(world, 2)
            assert await raw.rest() == b""
        assert [(line["event"], line["reason"]) for line in lines] == [
            ("connections cut", "stranger")
        ]


async def test_scraper_of_the_metrics_port_may_keep_its_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as main:
        relay = main.relay
        door, ports = relay.metrics_door(), listen("127.0.0.1", 0)
        clock = door.clock = Clock()
        url = f"http://127.0.0.1:{ports[0].getsockname()[1]}"
        async with serving(relay.metrics_application(), ports, door):
            raw = await Raw.to(World(relay, door, url, main.http))
            with capture_logs() as lines:
                for _ in range(20):
                    assert await _ask(door, raw, b"/metrics") == 200
                    clock.now += KEEP_S - SCRAPE_S
                    door.sweep()
            assert clock.now > 10 * STRANGER_S
            assert lines == []
            raw.writer.close()


async def _ask(door: Door, raw: Raw, path: bytes) -> int:
    raw.writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    status, _, _ = await raw.answer()
    await until(lambda: all(wire._current_request is None for wire in door._wires))
    return status
