"""SIGKILL of the signer between any two of its writes: commit, push, relay's answer, ack, result, receipt.

After each, the same is asked: every order that was answered reaches its appliance under its one number, a repeated
request makes nothing new, and what was verified stays verified.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.signersocket import SignerUnreachable
from protocol.acceptor import Accept
from protocol.codec import decode
from protocol.control import Push
from protocol.messages import MAX_STATEMENT, Receipt
from protocol.signed import parse_envelope
from tests.support.signer_device import Device
from tests.support.signer_relay_double import (
    RelayDouble,
    SignerProcess,
    enrol,
    order,
    relay_double,
    signer_process,
)

pytestmark = pytest.mark.fault


@dataclass
class World:
    """A signer, a relay and an appliance."""

    signer: SignerProcess
    relay: RelayDouble
    device: Device

    def kill_at(self, wanted: int) -> None:
        """Kill the signer when the n-th command from now is pushed, before the relay stores it."""
        left = [wanted]

        def at_push(push: Push) -> bool:
            left[0] -= push.kind == "command"
            if left[0] == 0:
                self.signer.kill()
                self.relay.at_push = lambda _push: True
                return False
            return True

        self.relay.at_push = at_push

    def dead(self) -> bool:
        """Whether the signer's process has ended."""
        return self.signer.child is None or self.signer.child.poll() is not None

    async def restart(self) -> None:
        """Start it again and wait until it is attached."""
        before = len(self.relay.attaches)
        self.signer.start()
        await self.relay.until(lambda: len(self.relay.attaches) > before)

    async def arrived(self, count: int) -> None:
        """Wait until the relay holds that many commands, and let the appliance take them in order."""
        name = self.device.id
        await self.relay.until(lambda: len(self.relay.commands) >= count)
        for seq in range(self.device.inbox_state.head.have + 1, count + 1):
            verdict = self.device.take(self.relay.commands[name, 1, seq])
            assert isinstance(verdict, Accept)
        assert self.relay.clashes == []

    def receipt(self) -> int:
        """Return what the last receipt confirms."""
        env = self.relay.kept.get(("receipt", self.device.id))
        if env is None:
            return 0
        payload = parse_envelope(env, limit=MAX_STATEMENT).p
        return decode(payload, Receipt, limit=MAX_STATEMENT).n

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Read a job over the local socket."""
        return self.signer.ask("GET", f"/v1/jobs/{job['id']}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with relay_double() as relay:
        with signer_process(tmp_path, relay.port) as signer:
            yield World(signer, relay, await enrol(signer, relay))


async def test_killed_after_the_commit_before_the_push(world: World) -> None:
    world.relay.refuse = lambda push: "relay.backlog" if push.kind == "command" else ""
    job = await order(world.signer, world.relay, world.device)
    world.signer.kill()
    world.relay.refuse = lambda _push: ""
    assert world.relay.commands == {}
    await world.restart()
    await world.arrived(1)
    assert world.device.inbox[1].id.hex() == job["id"]


async def test_killed_after_the_push_before_the_relays_answer(world: World) -> None:
    world.kill_at(1)
    body, headers = world.signer.order_request(world.device)
    job = world.signer.ask("POST", "/v1/jobs", body, headers=headers)
    await world.relay.until(world.dead)
    await world.restart()
    await world.arrived(1)
    assert world.device.inbox[1].id.hex() == job["id"]
    pushed = [push.env for push in world.relay.pushes if push.kind == "command"]
    assert len(pushed) >= 2  # what nobody acknowledged may be pushed more than once more
    assert len(set(pushed)) == 1


async def test_killed_after_the_answer_a_repeated_request_signs_nothing_new(world: World) -> None:
    body, headers = world.signer.order_request(world.device)
    first = await world.relay.call("POST", "/v1/jobs", body, headers)
    await world.arrived(1)
    world.signer.kill()
    await world.restart()
    again = await world.relay.call("POST", "/v1/jobs", body, headers)
    assert again.body == first.body
    await order(world.signer, world.relay, world.device)
    await world.arrived(2)
    assert len(world.relay.commands) == 2


async def test_killed_after_the_ack(world: World) -> None:
    job = await order(world.signer, world.relay, world.device)
    await world.arrived(1)
    await world.relay.state("ack", world.device, world.device.ack_env())
    world.signer.kill()
    await world.restart()
    await order(world.signer, world.relay, world.device)  # its frame comes after the ack's
    assert world.job(job)["state"] == "accepted"
    await world.arrived(2)


async def test_killed_around_the_result_and_before_the_receipt(world: World) -> None:
    job = await order(world.signer, world.relay, world.device)
    await world.arrived(1)
    env = world.device.result_env(job)
    await world.relay.state("result", world.device, env)
    world.signer.kill()  # it may have stored it, or not
    await world.restart()
    await world.relay.until(lambda: world.receipt() == 1)
    assert world.job(job)["state"] == "succeeded"
    world.relay.kept.clear()  # the receipt is lost with the relay's disk
    world.signer.kill()
    await world.restart()
    await world.relay.until(lambda: world.receipt() == 1)


@pytest.mark.parametrize("seed", range(5))
async def test_killed_at_random_while_orders_come(world: World, seed: int) -> None:
    chance = random.Random(seed)
    answered: list[str] = []
    for _ in range(4):
        world.kill_at(chance.randrange(1, 6))
        for _ in range(8):
            body, headers = world.signer.order_request(world.device)
            try:
                reply = world.signer.ask("POST", "/v1/jobs", body, headers=headers)
            except SignerUnreachable:  # it was killed at the push of the one before
                break
            answered.append(reply["id"])
            await asyncio.sleep(0)  # the relay takes what came
        if not world.dead():
            world.signer.kill()
        world.relay.at_push = lambda _push: True
        await world.restart()
        await order(world.signer, world.relay, world.device)
    signed = world.signer.ask("GET", "/v1/status")["envelopes"]
    await world.arrived(signed)
    taken = {command.id.hex() for command in world.device.inbox.values()}
    assert set(answered) <= taken
    assert world.signer.ask("GET", "/v1/status")["audit_broken_at"] is None


async def test_no_secret_reaches_database_or_log(world: World) -> None:
    secrets = [(world.signer.keys / "relay.token").read_text().strip().encode()]
    for path in sorted((world.signer.keys / "signer").iterdir()):
        text = path.read_text().split('private = "')[1].split('"')[0]
        secrets += [text.encode(), bytes.fromhex(text)]
    token = world.signer.ask("POST", "/v1/tokens", {"tenant": "acme"})["token"]
    secrets.append(token.split(".")[1].encode())
    await order(world.signer, world.relay, world.device)
    world.signer.kill()
    files = [*world.signer.database.parent.iterdir(), world.signer.folder / "log"]
    data = b"".join(path.read_bytes() for path in files if path.is_file())
    assert [secret for secret in secrets if secret in data] == []
