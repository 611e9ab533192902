"""A relay's answer that arrives in several segments is read whole: by the SDK's transport and by enrolment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agent.config import AgentConfig, RelayConfig
from appliance.enrol import RelayRefused, enrol
from protocol.enrol import Token
from relay.client_http import Transport
from relay.errors import ClientError

DETAIL = "the tenant's quota of appliances is used up " + "x" * 400
PROBLEM = msgspec.json.encode({"code": "relay.quota", "detail": DETAIL})


async def _in_pieces(request: web.Request) -> web.StreamResponse:
    status = 200 if request.path.endswith("/good") else 403
    answer = web.StreamResponse(status=status)
    answer.content_length = len(PROBLEM)
    await answer.prepare(request)
    for start in range(0, len(PROBLEM), 100):
        await answer.write(PROBLEM[start : start + 100])
        await asyncio.sleep(0.02)  # so that each is a segment of its own
    return answer


@asynccontextmanager
async def slow_relay() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _in_pieces)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_sdk_reads_an_answer_and_a_problem_whole() -> None:
    async with slow_relay() as url, Transport(url, "key") as transport:
        assert (await transport.request("GET", "/good")).body == PROBLEM
        with pytest.raises(ClientError, match="quota of appliances") as refused:
            await transport.request("GET", "/bad")
        assert refused.value.problem == "relay.quota"


async def test_the_sdk_reads_a_streams_problem_whole() -> None:
    async with slow_relay() as url, Transport(url, "key") as transport:
        with pytest.raises(ClientError, match="quota of appliances"):
            async with transport.stream("/bad", {}, idle_s=5):
                pass


async def test_enrolment_reads_the_relays_reason_whole(tmp_path: Path) -> None:
    token = Token(id="site", secret=bytes(32), root_fingerprint="a" * 52)
    async with slow_relay() as url:
        config = AgentConfig(state_dir=str(tmp_path), relay=RelayConfig(url=url))
        with pytest.raises(RelayRefused, match="quota of appliances"):
            await enrol(config, token)
