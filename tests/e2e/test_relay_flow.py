"""A command's way through the relay, and back: REST, agent and signer over real sockets."""

import asyncio
import base64
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from protocol.codec import decode
from protocol.control import ApplianceHead, Attach, Quarantined, Statement, TimeWanted
from protocol.frames import (
    CLOSE_GOING_AWAY,
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_SUPERSEDED,
    CommandFrame,
    GoingAway,
    ReceiptFrame,
    Stored,
    TimeFrame,
    TimeRequest,
)
from protocol.messages import Kind, Receipt, Result, ResultsThrough
from protocol.signed import parse_envelope
from relay.store.base import Store
from relay.store.memory import MemoryStore
from relay.store.sqlite import open_sqlite
from tests.support import protocol_world as w
from tests.support.relay_world import JOURNAL, AgentDouble, SignerDouble, commands, result, running

pytestmark = pytest.mark.e2e


async def test_command_reaches_the_agent_and_its_result_the_reader(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "relay.db", now=w.T0)
    (env,) = commands(1)
    async with running(tmp_path, store=store) as world:
        await world.know_appliance()
        async with world.agent() as agent:
            await agent.fetch(1)
            status, body = await world.post_command(env)
            assert (status, body["seq"], body["id"]) == (202, 1, (1).to_bytes(16).hex())
            assert (await agent.expect(CommandFrame)).env == env
            await agent.ack(1)
            signed = await agent.result(result(1, env))
            stored = await agent.expect(Stored)
            assert stored.results == ResultsThrough(journal=JOURNAL, n=1)
            job = await world.get(f"/v1/jobs/{body['id']}")
            assert job["state"] == "succeeded"
            assert base64.b64decode(job["result"]["envelope"]) == signed


async def test_same_envelope_again_is_answered_alike_and_another_one_refused(
    tmp_path: Path,
) -> None:
    (env,) = commands(1)
    other = w.signed_command(w.HEAD_0, op="diagnostics")
    async with running(tmp_path) as world:
        await world.know_appliance()
        first, again = await world.post_command(env), await world.post_command(env)
        assert first == again
        status, body = await world.post_command(other)
        assert (status, body["code"]) == (409, "relay.seq-taken")


async def test_forged_envelope_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    forged = w.envelope(Kind.COMMAND, w.command(), w.OTHER_DEVICE)
    async with running(tmp_path) as world:
        await world.know_appliance()
        status, body = await world.post_command(forged)
        assert (status, body["code"]) == (403, "protocol.unknown-key")
        assert await world.store.jobs(w.TENANT, before=0, limit=9) == ()


async def test_stored_commands_are_sent_in_order_and_within_the_window(tmp_path: Path) -> None:
    envs = commands(20)
    async with running(tmp_path) as world:
        await world.know_appliance()
        for env in envs:
            await world.post_command(env)
        async with world.agent() as agent:
            await agent.fetch(1, window=5)
            got = [(await agent.expect(CommandFrame)).seq for _ in range(5)]
            await agent.ack(5)
            got += [(await agent.expect(CommandFrame)).seq for _ in range(5)]
            assert got == list(range(1, 11))


async def test_newest_verified_connection_wins(tmp_path: Path) -> None:
    (env,) = commands(1)
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.agent() as old, world.agent() as new:
            assert (await old.closed())[0] == CLOSE_SUPERSEDED
            assert new.welcome is not None
            assert new.welcome.generation == 2
            await old.socket.close()
            view = await world.get(f"/v1/appliances/{w.APPLIANCE}")
            assert (view["connected"], view["generation"]) == (True, 2)
            await new.fetch(1)
            await world.post_command(env)
            assert (await new.expect(CommandFrame)).env == env
        async with world.signer():  # the disconnect is seen before the next answer
            pass


async def test_wrong_device_key_and_unknown_appliance_end_alike(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.know_appliance()
        ends = []
        for changes, device in (({}, w.OTHER_DEVICE), ({"appliance": "site-9"}, w.DEVICE)):
            async with world.http.ws_connect(f"{world.url}/v1/channel") as socket:
                agent = AgentDouble(socket, device)
                await agent.say_hello(**changes)
                ends.append(await agent.closed())
        assert ends[0] == ends[1] == (CLOSE_REFUSED, "protocol.not-authentic")


async def test_poison_is_quarantined_and_its_number_taken_by_another(tmp_path: Path) -> None:
    poison, good = w.signed_command(op="diagnostics"), w.signed_command()
    async with running(tmp_path) as world, world.signer() as signer:
        await signer.introduce()
        async with world.agent() as agent:
            await agent.fetch(1)
            await signer.push("command", poison)
            assert (await agent.expect(CommandFrame)).env == poison
            digest = parse_envelope(poison, limit=2**20).digest
            await agent.nack(digest, "protocol.fork")
            told = await signer.expect(Quarantined)
            assert (told.epoch, told.seq, told.digest) == (1, 1, digest)
            assert (await signer.push("command", poison)).code == "relay.quarantined"
            assert (await signer.push("command", good)).code == ""
            assert (await agent.expect(CommandFrame)).env == good


async def test_signer_hears_statements_untouched_and_its_time_reaches_the_agent(
    tmp_path: Path,
) -> None:
    envs = commands(1)
    async with running(tmp_path) as world, world.signer() as signer:
        await signer.introduce()
        async with world.agent() as agent:
            hello = await signer.expect(Statement)
            assert (hello.kind, hello.appliance) == ("hello", w.APPLIANCE)
            await agent.send(TimeRequest(nonce=b"n" * 16))
            assert (await signer.expect(TimeWanted)).nonce == b"n" * 16
            time = w.envelope(Kind.TIME, w.signed_time(nonce=b"n" * 16), w.TIME)
            assert (await signer.push("time", time)).code == ""
            assert (await agent.expect(TimeFrame)).env == time
            await signer.push("command", envs[0])
            await agent.fetch(1)
            await agent.ack(1)
            assert (await signer.expect(Statement)).kind == "ack"
            signed = await agent.result(result(1, envs[0]), b"")
            heard = await signer.expect(Statement)
            assert (heard.kind, heard.env) == ("result", signed)
            receipt = Receipt(v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=JOURNAL, n=1)
            env = w.envelope(Kind.RECEIPT, receipt, w.COMMAND)
            await signer.push("receipt", env)
            assert (await agent.expect(ReceiptFrame)).env == env


async def test_signer_that_was_away_gets_the_results_that_it_lacks(tmp_path: Path) -> None:
    envs = commands(3)
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.agent() as agent:
            for n, env in enumerate(envs, start=1):
                await agent.result(result(n, env))
            while (await agent.expect(Stored)).results.n < 3:
                pass
        known = ApplianceHead(
            tenant=w.TENANT,
            appliance=w.APPLIANCE,
            epoch=1,
            seq=3,
            results=ResultsThrough(journal=JOURNAL, n=1),
        )
        async with world.signer(known) as signer:
            assert signer.attached is not None
            (head,) = signer.attached.appliances
            assert head.results == ResultsThrough(journal=JOURNAL, n=3)
            assert (await signer.expect(Statement)).kind == "hello"
            lacking = [await signer.expect(Statement) for _ in range(2)]
            assert [number_of(statement.env) for statement in lacking] == [2, 3]


@pytest.mark.parametrize("where", ["heads", "kept"])
async def test_nothing_overtakes_the_hello_while_a_signer_attaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A result that comes first makes the hello behind it look like one of an older journal."""
    envs = commands(2)
    reading, go_on = asyncio.Event(), asyncio.Event()
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.agent() as agent:
            await agent.result(result(1, envs[0]))
            await agent.expect(Stored)
            plain = getattr(world.store, where)

            async def slowly(*place: str) -> Any:
                found = await plain(*place)
                if where == "heads" or place[-1] == "hello":
                    reading.set()
                    await go_on.wait()
                return found

            monkeypatch.setattr(world.store, where, slowly)
            async with asyncio.TaskGroup() as group:
                group.create_task(_result_meanwhile(agent, result(2, envs[1]), reading, go_on))
                async with world.signer() as signer:
                    assert signer.attached is not None
                    heard = [await signer.expect(Statement) for _ in range(3)]
    assert signer.skipped == []  # `attached` came first: a signer hangs up on anything else
    assert [statement.kind for statement in heard] == ["hello", "result", "result"]
    assert [number_of(statement.env) for statement in heard[1:]] == [1, 2]


async def _result_meanwhile(
    agent: AgentDouble, sent: Result, reading: asyncio.Event, go_on: asyncio.Event
) -> None:
    await reading.wait()
    await agent.result(sent)
    await agent.expect(Stored)
    go_on.set()


def number_of(env: bytes) -> int:
    return decode(parse_envelope(env, limit=2**20).p, Result, limit=2**20).n


async def test_nack_that_may_pass_does_not_quarantine(tmp_path: Path) -> None:
    (env,) = commands(1)
    async with running(tmp_path) as world:
        await world.know_appliance()
        await world.post_command(env)
        async with world.agent() as agent:
            await agent.fetch(1)
            await agent.expect(CommandFrame)
            await agent.nack(parse_envelope(env, limit=2**20).digest, "protocol.unknown-key")
            await agent.fetch(1)  # the manifest came
            assert (await agent.expect(CommandFrame)).env == env


async def test_restored_empty_relay_is_refilled_by_signer_and_agent(tmp_path: Path) -> None:
    envs = commands(4)
    async with running(tmp_path, store=MemoryStore()) as world, world.signer() as signer:
        assert signer.attached is not None
        assert signer.attached.appliances == ()
        await signer.introduce()
        async with world.agent(have=2, results_last=2, confirmed=1) as agent:
            assert agent.welcome is not None
            assert agent.welcome.results == ResultsThrough(journal=JOURNAL, n=1)
            await agent.result(result(2, envs[1]))
            assert (await agent.expect(Stored)).results.n == 2
            for env in reversed(envs):
                assert (await signer.push("command", env)).code == ""
            await agent.fetch(3)
            got = [(await agent.expect(CommandFrame)).seq for _ in range(2)]
            assert got == [3, 4]
            states = {j.seq: j.state for j in await world.store.jobs(w.TENANT, before=0, limit=9)}
            assert states == {1: "accepted", 2: "succeeded", 3: "queued", 4: "queued"}


async def test_signer_of_one_tenant_cannot_speak_for_another(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.signer(token="acme-signer") as signer:
        env = w.envelope(Kind.MANIFEST, w.manifest(), w.ROOT)
        assert (await signer.push("manifest", env, appliance="*")).code == ""
        answer = await signer.push("manifest", env, appliance="*", tenant="other")
        assert answer.code == "relay.forbidden"


@pytest.mark.parametrize("token", ["admin", "nobody"])
async def test_only_a_control_key_attaches(tmp_path: Path, token: str) -> None:
    async with (
        running(tmp_path) as world,
        world.http.ws_connect(f"{world.url}/v1/control") as socket,
    ):
        signer = SignerDouble(socket)
        await signer.send(Attach(token=token))
        assert (await signer.closed())[0] == CLOSE_REFUSED


async def test_newest_signer_wins(tmp_path: Path) -> None:
    async with running(tmp_path) as world, world.signer() as old, world.signer() as new:
        assert (await old.closed())[0] == CLOSE_SUPERSEDED
        await new.introduce()


async def test_stopping_relay_says_goodbye(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.agent() as agent, asyncio.TaskGroup() as group:
            group.create_task(world.relay.go_away())
            goodbye = await agent.expect(GoingAway)
            assert goodbye.after + goodbye.spread <= 300
            assert (await agent.closed())[0] == CLOSE_GOING_AWAY


async def test_text_and_frames_out_of_turn_end_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        await world.know_appliance()
        async with world.agent() as agent:
            await agent.socket.send_str("hello")
            assert (await agent.closed())[0] == CLOSE_PROTOCOL
        async with world.agent() as agent:
            await agent.send(b"\xc1")
            assert (await agent.closed())[0] == CLOSE_PROTOCOL


async def test_a_signer_that_was_away_hears_of_the_poison_when_it_comes(tmp_path: Path) -> None:
    poison = w.signed_command(op="diagnostics")
    async with running(tmp_path) as world:
        async with world.signer() as signer:
            await signer.introduce()
            await signer.push("command", poison)
        async with world.agent() as agent:
            await agent.fetch(1)
            await agent.expect(CommandFrame)
            await agent.nack(parse_envelope(poison, limit=2**20).digest, "protocol.fork")
            async with asyncio.timeout(30):
                while await world.store.kept(w.TENANT, w.APPLIANCE, "nack") is None:  # noqa: ASYNC110 - the store tells nobody
                    await asyncio.sleep(0.01)
        async with world.signer() as signer:
            kinds = [(await signer.expect(Statement)).kind for _ in range(2)]
    assert "nack" in kinds


async def test_an_envelope_that_rotted_in_the_store_is_taken_again(tmp_path: Path) -> None:
    """The appliance refuses bytes that only the relay has: the signer's own must not stay out for them."""
    good = w.signed_command()
    rotten = good[:-1] + bytes([good[-1] ^ 1])
    store = open_sqlite(tmp_path / "relay.db", now=w.T0)
    async with running(tmp_path, store=store) as world, world.signer() as signer:
        await signer.introduce()
        await signer.push("command", good)
        with sqlite3.connect(tmp_path / "relay.db") as disk:
            assert disk.execute("UPDATE command SET env = ?", (rotten,)).rowcount == 1
        async with world.agent() as agent:
            await agent.fetch(1)
            assert (await agent.expect(CommandFrame)).env == rotten
            await agent.nack(hashlib.sha256(rotten).digest(), "protocol.bad-signature")
            await signer.expect(Statement)
            async with asyncio.timeout(30):
                while not await dropped(store):  # noqa: ASYNC110 - the store tells nobody
                    await asyncio.sleep(0.01)
            assert (await signer.push("command", good)).code == ""
            assert (await agent.expect(CommandFrame)).env == good


async def dropped(store: Store) -> bool:
    entries = await store.audit(w.TENANT, after=0, limit=100)
    return "command.damaged" in {entry.action for entry in entries}
