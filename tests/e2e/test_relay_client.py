"""The SDK against a real relay: seals before it sends, signs, retries safely, follows a job over a cut."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from protocol.caller import check_request
from protocol.codec import decode_plain
from protocol.control import Call, Reply
from protocol.frames import Stored
from protocol.sealing import Sealed, SealScope, unseal
from relay.client import RelayClient
from relay.client_http import ATTEMPTS, Transport
from relay.client_seal import seal_spec
from relay.errors import ClientError, Unreachable
from tests.support import protocol_world as w
from tests.support.relay_world import SignerDouble, World, commands, result, running, until

pytestmark = pytest.mark.e2e

CALLER = w.key_of("portal")
VAULT = w.seal_key_of("vault")
SECRET = "correct horse"
SPEC = {
    "tenant": w.TENANT,
    "appliance": w.APPLIANCE,
    "op": "upload",
    "args": {
        "source": {
            "kind": "smb",
            "server": "nas",
            "share": "images",
            "credential": {"username": "reader", "password": SECRET},
        },
        "path": "golden.vhdx",
        "target": {"kind": "local", "name": "shelf", "disk": "golden"},
    },
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        await made.know_appliance()
        yield made


def client(world: World, *, key: str = "operator") -> RelayClient:
    return RelayClient(world.url, api_key=key, caller=CALLER, vault_key=VAULT.public)


async def accept(signer: SignerDouble, status: int = 202) -> Call:
    """Answer the next call as a signer would, for command 1."""
    call = await signer.expect(Call)
    body = {
        "id": (1).to_bytes(16).hex(),
        "digest": "0" * 64,
        "appliance": w.APPLIANCE,
        "epoch": 1,
        "seq": 1,
    }
    await signer.send(
        Reply(
            call=call.call,
            status=status,
            headers={"content-type": "application/json"},
            body=msgspec.json.encode(body),
        )
    )
    return call


async def test_spec_reaches_the_signer_signed_and_without_a_secret_in_clear(world: World) -> None:
    async with world.signer() as signer, client(world) as relay, asyncio.TaskGroup() as group:
        submitted = group.create_task(relay.submit(SPEC))
        call = await accept(signer)
        assert (await submitted).seq == 1
    assert SECRET.encode() not in call.body
    check_request(
        CALLER.public,
        call.headers,
        method=call.method,
        path=call.path,
        body=call.body,
        now_ms=int(call.headers["imageport-time"]),
    )
    spec = msgspec.json.decode(call.body)
    sealed = msgspec.convert(spec["args"]["source"]["credential"], Sealed)
    scope = SealScope(
        w.TENANT, CALLER.kid.hex(), bytes.fromhex(spec["request"]), "source.credential"
    )
    clear = decode_plain(unseal(sealed, [VAULT], scope), limit=1000)
    assert clear == {"username": "reader", "password": SECRET}


async def test_order_is_tried_again_with_the_same_key_and_bytes(world: World) -> None:
    async with world.signer() as signer, client(world) as relay, asyncio.TaskGroup() as group:
        relay._http.jitter = lambda _most: 0.0
        submitted = group.create_task(relay.submit(SPEC))
        first, second = await accept(signer, status=502), await accept(signer)
        assert (await submitted).id == (1).to_bytes(16).hex()
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize("text", ["a&state=queued", "../audit", "a?b#c", "ä b", "%2e", "a\r\nX: y"])
async def test_what_a_caller_names_stays_one_value_or_one_part(world: World, text: str) -> None:
    async with client(world, key="admin") as relay:
        for name in ("appliance", "state"):
            with pytest.raises(ClientError, match=rf"\$\.{name}") as caught:
                _ = [job async for job in relay.jobs(**{name: text})]
            assert caught.value.problem == "relay.bad-request"
        for asked in (relay.job(text), relay.record(text), anext(relay.watch(text))):
            with pytest.raises(ClientError) as caught:
                await asked
            assert (caught.value.status, caught.value.problem) == (404, "relay.not-found")
        with pytest.raises(ClientError) as caught:
            await relay.cancel(text)
        assert caught.value.status == 404


async def test_unknown_job_is_told_at_once_unless_it_was_just_ordered(world: World) -> None:
    (env,) = commands(1)
    job = (1).to_bytes(16).hex()
    async with client(world) as relay:
        with pytest.raises(ClientError) as caught:
            await anext(relay.watch(job))
        assert caught.value.problem == "relay.not-found"
        assert 'relay_http_requests_total{route="/v1/jobs/{id}/events",status="404"} 1.0' in (
            world.relay.shared.metrics.text().decode()
        )
        async with asyncio.TaskGroup() as group:
            first = group.create_task(anext(relay.watch(job, just_ordered=True)))  # type: ignore[arg-type]
            await until(lambda: '404"} 2.0' in world.relay.shared.metrics.text().decode())
            await world.post_command(env)
        assert first.result().state == "queued"


async def test_refusal_is_told_with_its_code_and_not_repeated(world: World) -> None:
    async with client(world, key="reader") as relay:
        with pytest.raises(ClientError) as caught:
            await relay.submit(SPEC)
    assert (caught.value.problem, caught.value.status) == ("relay.forbidden", 403)
    async with client(world) as relay:
        with pytest.raises(ClientError) as caught:
            await relay.job("0" * 32)
    assert caught.value.problem == "relay.not-found"


async def test_job_is_followed_to_its_end_over_a_cut(world: World) -> None:
    (env,) = commands(1)
    _, queued = await world.post_command(env)
    states = []
    async with client(world) as relay, world.agent() as agent:
        relay._http.jitter = lambda _most: 0.0
        async for event in relay.watch(queued["id"]):
            states.append(event.state)
            if event.state == "queued":
                world.relay.shared.hub.close()  # every stream ends, as at a restart
                world.relay.shared.hub.closed = False
                await agent.ack(1)
            elif event.state == "accepted":
                await agent.result(result(1, env))
                await agent.expect(Stored)
    assert states == ["queued", "accepted", "succeeded"]


async def test_lists_come_whole(world: World) -> None:
    for env in commands(3):
        await world.post_command(env)
    async with client(world) as relay:
        assert [job["seq"] async for job in relay.jobs()] == [3, 2, 1]
        assert [job async for job in relay.jobs(state="failed")] == []
        assert [row["id"] for row in await relay.appliances()] == [w.APPLIANCE]
        assert base64.b64decode((await relay.keys())["manifest"]) == w.envelope(
            w.Kind.MANIFEST, w.manifest(), w.ROOT
        )
        assert (await relay.openapi())["openapi"] == "3.1.0"


async def test_finished_envelope_is_posted(world: World) -> None:
    async with client(world) as relay:
        answer = await relay.post_command(commands(1)[0])
    assert answer["seq"] == 1


async def test_relay_that_is_not_there_is_named(tmp_path: Path) -> None:
    told: list[ClientError] = []
    async with RelayClient(
        "http://127.0.0.1:9", api_key="top-secret", retrying=told.append
    ) as relay:
        relay._http.jitter = lambda _most: 0.0
        with pytest.raises(Unreachable) as caught:
            await relay.jobs().__anext__()
    assert "127.0.0.1:9" in str(caught.value)
    assert "top-secret" not in str(caught.value)
    assert len(told) == ATTEMPTS - 1


async def test_proxy_is_used_with_its_password_and_its_refusal_named(world: World) -> None:
    seen: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Proxy-Authorization", ""))
        return web.Response(status=407)

    server = web.Server(proxy)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://user:pass%20word@127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with RelayClient(world.url, api_key="reader", proxy=address) as relay:
            with pytest.raises(ClientError) as caught:
                await relay.keys()
    finally:
        await runner.cleanup()
    assert base64.b64decode(seen[0].removeprefix("Basic ")) == b"user:pass word"
    assert "pass" not in str(caught.value)


async def test_tunnel_shows_the_proxy_its_own_password_and_not_the_api_key() -> None:
    seen = bytearray()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        proxy = f"http://user:word@127.0.0.1:{port}"
        async with RelayClient("https://relay.invalid", api_key="top-secret", proxy=proxy) as relay:
            relay._http.jitter = lambda _most: 0.0
            with pytest.raises(Unreachable, match="the proxy answered 407"):
                await relay.keys()
    assert seen.startswith(b"CONNECT relay.invalid:443 ")
    assert base64.b64encode(b"user:word") in seen
    assert b"top-secret" not in seen


def test_sealed_secret_is_left_as_it_is_and_clear_one_needs_a_vault() -> None:
    full: dict[str, Any] = {**SPEC, "request": "0" * 32}
    sealed = seal_spec(full, VAULT.public, caller=CALLER.kid.hex())
    assert seal_spec(sealed, None, caller="") == sealed
    with pytest.raises(ClientError, match=r"source\.credential"):
        seal_spec(full, None, caller="")


async def test_closed_client_says_so() -> None:
    with pytest.raises(ClientError):
        await Transport("http://127.0.0.1:9", "key").request("GET", "/v1/jobs")
