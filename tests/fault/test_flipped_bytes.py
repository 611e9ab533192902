"""One flipped byte on the wire, at any place of what is written: the service refuses it, or reading back finds it.

No TLS here, which would catch it first; the proxy flips one bit in the stream towards the service.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from appliance.sim.azure import AzureSim
from imaging.units import KiB, MiB
from tests.support.azure_jobs import CONTAINER, write_source
from tests.support.rigs import RIGS

pytestmark = pytest.mark.fault


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=20.0)
    )


@asynccontextmanager
async def flipping(port: int, at: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Proxy to a port; one bit of byte `at` of everything that large requests send is flipped, once."""
    seen, flipped = [0], []

    async def forward(reader, writer, *, up: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(64 * KiB):
                if up and len(data) > 16 * KiB:  # in the middle of a body, not in a head
                    if not flipped and seen[0] + len(data) > at:
                        changed = bytearray(data)
                        changed[len(data) // 2] ^= 0x10
                        data = bytes(changed)
                        flipped.append(seen[0])
                    seen[0] += len(data)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError, OSError):
            writer.close()

    async def serve(reader, writer) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(forward(reader, up_writer, up=True))
            group.create_task(forward(up_reader, writer, up=False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], flipped


CASES = {
    "page blob, the service checks": ("azure-page-blob", True),
    "page blob, reading back": ("azure-page-blob", False),
    "snapshot": ("aws-snapshot", True),
    "archive": ("gcp-image", True),
    "object": ("aws-s3", True),
}
"""A managed disk's tokens need TLS; its pages are those of a page blob."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("seed", range(2))
async def test_a_flipped_byte_never_ends_in_a_success(
    case: tuple[str, bool], seed: int, tmp_path: Path
) -> None:
    kind, checked = case
    write_source(tmp_path)
    at = random.Random(seed).randrange(100 * KiB, 6 * MiB)
    sim = RIGS[kind].make_sim()
    async with sim:
        port = urlsplit(sim.url).port
        async with flipping(port, at) as (thin, flipped):
            sim.url = sim.url.replace(str(port), str(thin))
            if isinstance(sim, AzureSim):
                sim.make_container(CONTAINER)
            rig = RIGS[kind](sim, tmp_path, None)
            if kind == "gcp-image":
                sim._tokens.url = sim.url + "/token"
            job = rig.job(uploads={"service_checksum": checked})
            if checked:
                outcome = await UploadStage().run(job)
                assert outcome.report["transfer"]["retries"] >= 1
                assert rig.stored() == rig.expected()
            else:
                with pytest.raises(AgentError) as caught:
                    await UploadStage().run(job)
                assert caught.value.code == "transfer.verify-mismatch"
        assert flipped
