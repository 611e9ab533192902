"""A signer process, a relay and an appliance over real sockets: enrol, order, take, finish; a relay loses its disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.keyfiles import read
from protocol.acceptor import Accept
from protocol.codec import decode, encode
from protocol.enrol import parse_token
from protocol.frames import (
    AckFrame,
    Challenge,
    CommandFrame,
    Credit,
    Fetch,
    HelloFrame,
    ReceiptFrame,
    ResultFrame,
    TimeFrame,
    Welcome,
)
from protocol.keys import KeyRing
from protocol.messages import MAX_STATEMENT, Receipt, Time
from protocol.sealing import SealKey
from protocol.signed import SigningKey, parse_envelope
from relay.client import RelayClient
from relay.errors import ClientError
from tests.support.relay_world import AgentDouble, World, running, until
from tests.support.signer_device import TENANT, Device
from tests.support.signer_relay_double import SignerProcess, signer_process

pytestmark = pytest.mark.e2e

TOKEN = "acme-signer"


class _Site:
    """What a device needs of a kit when there is none."""

    def __init__(self, signer: SignerProcess) -> None:
        root = read(signer.keys / "root.pub").public
        self.authority = self
        self.ring = KeyRing.open((signer.keys / "manifest").read_bytes(), root=root)
        self.now_ms = 0


@asynccontextmanager
async def _signer(folder: Path, relay: World) -> AsyncIterator[SignerProcess]:
    port = int(relay.url.rpartition(":")[2])
    with signer_process(folder, port, token=TOKEN) as signer:
        await _attached(relay)
        yield signer


async def _attached(relay: World) -> None:
    await until(lambda: relay.relay.shared.signers.of(TENANT) is not None)


async def _enrol(signer: SignerProcess, relay: World) -> Device:
    token = parse_token(signer.ask("POST", "/v1/tokens", {"tenant": TENANT})["token"])
    device = Device(_Site(signer), SigningKey.generate(), SealKey.generate())  # type: ignore[arg-type]
    body = encode(device.request(token))
    async with relay.http.post(f"{relay.url}/v1/enrolments", data=body) as answer:
        assert answer.status == 200, await answer.text()
        device.trust(await answer.read())
    return device


@asynccontextmanager
async def _online(relay: World, device: Device) -> AsyncIterator[AgentDouble]:
    """Connect the device; it is online once it has the signed time that its hello asked for."""
    async with relay.http.ws_connect(f"{relay.url}/v1/channel", max_msg_size=0) as socket:
        agent = AgentDouble(socket)
        challenge = await agent.expect(Challenge)
        env = device.hello_env(challenge=challenge.challenge)
        await agent.send(HelloFrame(tenant=TENANT, appliance=device.id, env=env))
        await agent.expect(Welcome)
        frame = await agent.expect(TimeFrame)
        payload = parse_envelope(frame.env, limit=MAX_STATEMENT).p
        assert decode(payload, Time, limit=MAX_STATEMENT).appliance == device.id
        yield agent


async def _take(agent: AgentDouble, device: Device) -> None:
    await agent.send(Credit(n=64))
    await agent.send(Fetch(epoch=1, seq=device.inbox_state.head.have + 1))
    frame = await agent.expect(CommandFrame)
    assert isinstance(device.take(frame.env), Accept)
    await agent.send(AckFrame(env=device.ack_env()))


def _client(signer: SignerProcess, relay: World) -> RelayClient:
    return RelayClient(
        relay.url,
        api_key="operator",
        caller=signer.caller.signing_key(),
        vault_key=read(signer.keys / "vault.pub").public,
    )


async def test_an_order_goes_its_whole_way_and_its_result_is_confirmed(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "relay") as relay,
        _signer(tmp_path / "signer", relay) as signer,
        _client(signer, relay) as client,
    ):
        device = await _enrol(signer, relay)
        async with _online(relay, device) as agent:
            job = await client.submit(
                {"tenant": TENANT, "appliance": device.id, "op": "diagnostics", "args": {}}
            )
            await _take(agent, device)
            shown = signer.ask("GET", f"/v1/jobs/{job.id}")
            env = device.result_env(shown)
            await agent.send(ResultFrame(env=env))
            receipt = await agent.expect(ReceiptFrame)
        payload = parse_envelope(receipt.env, limit=MAX_STATEMENT).p
        assert decode(payload, Receipt, limit=MAX_STATEMENT).n == 1
        assert signer.ask("GET", f"/v1/jobs/{job.id}")["state"] == "succeeded"
        assert (await client.job(job.id))["state"] == "succeeded"


async def test_a_relay_that_lost_its_disk_is_refilled(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "relay") as relay,
        _signer(tmp_path / "signer", relay) as signer,
        _client(signer, relay) as client,
    ):
        device = await _enrol(signer, relay)
        async with _online(relay, device):
            job = await client.submit(
                {"tenant": TENANT, "appliance": device.id, "op": "diagnostics", "args": {}}
            )
        assert signer.stop() == 0
        async with running(tmp_path / "empty") as empty:
            signer.move(int(empty.url.rpartition(":")[2]))
            signer.start()
            await _attached(empty)
            await until(lambda: empty.relay.shared.intake._rings != {})
            async with _online(empty, device) as agent:
                await _take(agent, device)
        assert device.inbox[1].id.hex() == job.id


async def test_what_the_signer_refuses_is_the_callers_answer(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "relay") as relay,
        _signer(tmp_path / "signer", relay) as signer,
        _client(signer, relay) as client,
    ):
        spec = {"tenant": TENANT, "appliance": "nobody", "op": "diagnostics", "args": {}}
        with pytest.raises(ClientError) as unknown:
            await client.submit(spec)
        assert unknown.value.problem == "signer.not-found"
        client.caller = SigningKey.generate()
        with pytest.raises(ClientError) as stranger:
            await client.submit(spec)
        assert stranger.value.problem == "signer.not-authenticated"
