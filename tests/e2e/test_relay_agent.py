"""The real agent on the real relay: a signed order runs, its progress reaches the SDK, its result the signer; restarts.

The signer is a double that does the least: it signs the time when a hello or a question comes, and pushes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.codec import decode
from protocol.control import Push, Statement, TimeWanted, parse_to_signer
from protocol.messages import MAX_RESULT, MAX_STATEMENT, Ack, Command, Hello, Kind, Result
from protocol.signed import open_statement, parse_envelope
from relay.client import RelayClient
from relay.store.sqlite import open_sqlite
from tests.support import protocol_world as w
from tests.support.agent_relay_double import Line
from tests.support.agent_world import StepStage, agent, prepare
from tests.support.relay_world import SignerDouble, World, running, until

pytestmark = pytest.mark.e2e


class BusySigner:
    """A signer that answers by itself; it must be the only reader of its socket."""

    def __init__(self, double: SignerDouble, world: World) -> None:
        self.double = double
        self.world = world
        self.seen = (1, 0)
        self.results: dict[bytes, Result] = {}
        self.pushes = 1000

    async def run(self) -> None:
        while True:
            frame = parse_to_signer(await self.double._receive())
            match frame:
                case TimeWanted():
                    await self.sign_time(frame.nonce)
                case Statement(kind="hello"):
                    hello = self._open(frame, Kind.HELLO, Hello)
                    self.seen = max(self.seen, (hello.epoch, hello.have))
                    await self.sign_time(hello.nonce)
                case Statement(kind="ack"):
                    ack = self._open(frame, Kind.ACK, Ack)
                    self.seen = max(self.seen, (ack.epoch, ack.have))
                case Statement(kind="result"):
                    payload = parse_envelope(frame.env, limit=MAX_RESULT).p
                    result = decode(payload, Result, limit=MAX_RESULT)
                    self.results[result.id] = result

    @staticmethod
    def _open(frame: Statement, kind: Kind, layout):
        return open_statement(kind, frame.env, layout, public=w.DEVICE.public, limit=MAX_STATEMENT)[
            1
        ]

    async def sign_time(self, nonce: bytes) -> None:
        time = w.signed_time(nonce=nonce, now=self.world.now, epoch=self.seen[0], seen=self.seen[1])
        await self.push("time", w.envelope(Kind.TIME, time, w.TIME))

    async def push(self, kind, env: bytes) -> None:
        self.pushes += 1
        await self.double.send(
            Push(push=self.pushes, kind=kind, tenant=w.TENANT, appliance=w.APPLIANCE, env=env)
        )

    async def order(self, order: tuple[Command, bytes]) -> str:
        await self.push("command", order[1])
        return order[0].id.hex()


@asynccontextmanager
async def attached(world: World) -> AsyncIterator[BusySigner]:
    async with world.signer() as double:
        await double.introduce()
        busy = BusySigner(double, world)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(busy.run())
            yield busy
            task.cancel()


async def test_order_runs_and_everybody_hears_of_it(tmp_path: Path) -> None:
    stage = StepStage(tmp_path / "effects")
    line = Line()
    async with (
        running(tmp_path) as world,
        attached(world) as signer,
        agent(prepare(tmp_path, world.url), stage),
    ):
        job = await signer.order(line.upload())
        async with RelayClient(world.url, api_key="reader") as client:
            events = [event async for event in client.watch(job)]
            shown = await client.job(job)
        await until(lambda: bytes.fromhex(job) in signer.results)
    assert events[-1].state == "succeeded"
    assert "progress" in {event.kind for event in events}
    assert shown["result"]["outputs"][0]["value"] == {"id": "id-disk"}
    assert shown["result"]["report"]["units"] == 3
    assert stage.lines()[-1] == "disk done"


async def test_agent_that_comes_late_takes_what_waits_in_order(tmp_path: Path) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    line = Line()
    async with running(tmp_path) as world, attached(world) as signer:
        for n in range(30):
            await signer.order(line.upload(f"disk{n}"))
        async with agent(prepare(tmp_path, world.url), stage):
            await until(lambda: len(signer.results) == 30)
    assert {result.status for result in signer.results.values()} == {"succeeded"}
    done = [entry for entry in stage.lines() if entry.endswith("done")]
    assert sorted(done) == sorted({f"disk{n} done" for n in range(30)})


async def test_agent_goes_on_with_a_relay_that_lost_its_database(tmp_path: Path) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    line = Line()
    first, second = line.upload("first"), line.upload("second")
    async with (
        running(tmp_path) as world,
        attached(world) as signer,
        agent(prepare(tmp_path, world.url), stage),
    ):
        await signer.order(first)
        await until(lambda: len(signer.results) == 1)
    store = open_sqlite(tmp_path / "fresh.db", now=w.T0)
    async with (
        running(tmp_path, store=store) as world,
        attached(world) as signer,
        agent(prepare(tmp_path, world.url), stage),
    ):
        await signer.order(second)
        await signer.order(first)  # the signer pushes all that it has no result of
        await until(lambda: len(signer.results) == 2)
    assert stage.lines().count("first done") == 1
    assert stage.lines().count("second done") == 1
