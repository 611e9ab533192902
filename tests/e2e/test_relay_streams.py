"""Event streams: progress arrives, a cut is resumed, a slow reader costs nothing, a finished job says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from protocol.frames import Stored
from protocol.jobs import EventBody, Progress, State
from relay.api import streams
from relay.config import Limits
from relay.sse import EventReader
from tests.support import protocol_world as w
from tests.support.relay_world import World, commands, result, running, until

pytestmark = pytest.mark.e2e


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        await made.know_appliance()
        yield made


class Stream:
    """One open event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.reader = EventReader()
        self.ready: list[tuple[int, str, Any]] = []

    async def next(self) -> tuple[int, str, Any] | None:
        """Return id, kind and data of the next event; None at the stream's end."""
        async with asyncio.timeout(20):
            while not self.ready:
                data = await self.response.content.readany()
                if not data:
                    return None
                self.ready = [
                    (int(event.id), event.kind, msgspec.json.decode(event.data))
                    for event in self.reader.feed(data)
                ]
        return self.ready.pop(0)

    async def rest(self) -> list[str]:
        """Return the states of everything up to the end."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event[2]["state"])
        return found


@asynccontextmanager
async def stream(world: World, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with world.http.get(world.url + path, headers=world.as_("reader") | headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Stream(response)


def running_body(done: int) -> EventBody:
    progress = Progress(attempt=1, step="copy", done=done, total=100)
    return EventBody(at=w.T0, state=State.RUNNING, op="sweep", progress=progress)


async def test_stream_of_a_job_tells_its_life_and_ends_with_it(world: World) -> None:
    (env,) = commands(1)
    _, job = await world.post_command(env)
    async with stream(world, f"/v1/jobs/{job['id']}/events") as events, world.agent() as agent:
        assert (await events.next())[2]["state"] == "queued"  # type: ignore[index]
        await agent.ack(1)
        await agent.event(bytes.fromhex(job["id"]), 1, running_body(10))
        await agent.result(result(1, env))
        states = await events.rest()
    assert states[0] == "accepted"
    assert states[-1] == "succeeded"
    assert states.count("succeeded") in (1, 2)  # the last progress may come with the end


async def test_finished_and_seen_job_answers_no_content(world: World) -> None:
    (env,) = commands(1)
    _, job = await world.post_command(env)
    async with world.agent() as agent:
        await agent.result(result(1, env))
        await agent.expect(Stored)
    path = f"/v1/jobs/{job['id']}/events"
    async with stream(world, path) as events:
        assert await events.rest() == ["queued", "succeeded"]
        last = events.reader.last_id
    headers = world.as_("reader") | {"Last-Event-ID": last}
    async with world.http.get(world.url + path, headers=headers) as again:
        assert again.status == 204


async def test_cut_stream_goes_on_after_its_last_event(world: World) -> None:
    (env,) = commands(1)
    _, job = await world.post_command(env)
    path = f"/v1/jobs/{job['id']}/events"
    async with stream(world, path) as events:
        first = await events.next()
    assert first is not None
    async with world.agent() as agent:
        await agent.ack(1)
        await agent.result(result(1, env))
        await agent.expect(Stored)
    async with stream(world, path, **{"Last-Event-ID": str(first[0])}) as events:
        assert await events.rest() == ["accepted", "succeeded"]


async def test_slow_reader_gets_every_state_and_only_the_latest_progress(world: World) -> None:
    (env,) = commands(1)
    _, job = await world.post_command(env)
    async with world.agent() as agent:
        await agent.ack(1)
        for n in range(1, 200):
            await agent.event(bytes.fromhex(job["id"]), n, running_body(n // 2))
        await agent.result(result(1, env))
        await agent.expect(Stored)
    async with stream(world, f"/v1/jobs/{job['id']}/events") as events:
        kinds = []
        while (event := await events.next()) is not None:
            kinds.append((event[1], event[2]["state"]))
    assert kinds == [
        ("state", "queued"),
        ("state", "accepted"),
        ("state", "running"),
        ("progress", "succeeded"),
        ("state", "succeeded"),
    ]


async def test_tenants_stream_tells_of_appliances_and_jobs_from_now_on(world: World) -> None:
    first, second = commands(2)
    await world.post_command(first)
    world.now += 1000
    async with stream(world, "/v1/events") as events, world.agent():
        event = await events.next()
        assert event is not None
        assert (event[1], event[2]["connected"]) == ("appliance", True)
        await world.post_command(second)
        event = await events.next()
        assert event is not None
        assert event[2]["job"] == (2).to_bytes(16).hex()
    async with stream(world, "/v1/events?after=0") as events:
        event = await events.next()
        assert event is not None
        assert event[2]["job"] == (1).to_bytes(16).hex()


async def test_news_of_others_do_not_take_a_stream_its_heartbeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(streams, "PAUSE_S", 0.01)
    await world.post_command(commands(1)[0])
    async with (
        stream(world, f"/v1/jobs/{(1).to_bytes(16).hex()}/events") as events,
        asyncio.TaskGroup() as group,
    ):
        poking = group.create_task(_poke(world))
        async with asyncio.timeout(20):
            while (await events.response.content.readline()) != b": heartbeat\n":
                pass
        poking.cancel()


async def test_stream_of_a_client_that_went_is_given_back_whatever_happens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PAUSE_S", 0.01)
    async with asyncio.TaskGroup() as group:
        async with stream(world, "/v1/events"):
            poking = group.create_task(_poke(world))
            assert world.relay.shared.hub.count(w.TENANT) == 1
        await until(lambda: world.relay.shared.hub.count(w.TENANT) == 0)
        poking.cancel()


async def _poke(world: World) -> None:
    """Wake the tenant's streams again and again, with nothing new."""
    while True:
        world.relay.shared.hub.poke(w.TENANT)
        await asyncio.sleep(0)  # the others' turn


async def test_streams_of_a_tenant_are_counted_and_given_back(tmp_path: Path) -> None:
    async with (
        running(tmp_path, limits=Limits(streams=1)) as world,
        stream(world, "/v1/events?after=0"),
    ):
        async with world.http.get(world.url + "/v1/events", headers=world.as_("admin")) as refused:
            assert refused.status == 429
        async with world.http.get(world.url + "/v1/events", headers=world.as_("stranger")) as other:
            assert other.status == 200


async def test_stopping_relay_ends_streams(world: World) -> None:
    async with stream(world, "/v1/events") as events:
        await world.relay.go_away()
        assert await events.rest() == []
