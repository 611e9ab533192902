"""A transfer names what holds it back: a slow source, a late or throttling service, a thin link, a limit."""

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.stages.upload import UploadStage
from agent.transfer.limiter import Limiter
from appliance.sim.azure import AzureSim
from appliance.sim.faults import Fault, Throttle
from imaging.filedev import FileDevice
from imaging.units import MiB
from tests.support.azure_jobs import CONTAINER, write_source
from tests.support.rigs import RIGS, Rig, running
from tests.support.thin_proxy import thin_link

pytestmark = pytest.mark.fault


async def held_by(rig: Rig, **job_options: object) -> str:
    """Return the side that held most of an upload back, as its result says."""
    job = rig.job(**job_options)
    outcome = await UploadStage().run(job)
    return next(iter(outcome.report["transfer"]["held_by"]))


@pytest.mark.parametrize("kind", ["azure-page-blob", "aws-snapshot", "gcp-image"])
async def test_late_answers_are_the_clouds(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as rig:
        rig.faults(Fault(action="late", seconds=0.8, op=rig.write))
        assert await held_by(rig) == "cloud"


@pytest.mark.parametrize("kind", ["aws-snapshot"])
async def test_throttling_is_the_clouds(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as rig:
        rig.faults(throttle=Throttle(requests_per_second=4, op=rig.write))
        assert await held_by(rig) == "cloud"


@pytest.mark.parametrize("kind", ["azure-page-blob", "aws-snapshot", "gcp-image"])
async def test_a_slow_share_is_the_source(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FileDevice.read_into

    def slow(self: FileDevice, offset: int, buffer: memoryview) -> None:
        time.sleep(0.1)  # a share far away: what this is about
        read(self, offset, buffer)

    async with running(kind, tmp_path) as rig:
        monkeypatch.setattr(FileDevice, "read_into", slow)
        assert await held_by(rig) == "source"


@pytest.mark.parametrize("kind", ["azure-page-blob", "aws-snapshot"])
async def test_a_bandwidth_limit_is_the_limit(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as rig:
        job = rig.job()
        object.__setattr__(job, "limiter", Limiter(2 * MiB, now=time.monotonic))
        outcome = await UploadStage().run(job)
        assert next(iter(outcome.report["transfer"]["held_by"])) == "limit"


async def test_a_thin_link_is_the_network(tmp_path: Path) -> None:
    write_source(tmp_path)
    async with AzureSim() as sim:
        sim.make_container(CONTAINER)
        port = urlsplit(sim.url).port
        async with thin_link(port, rate=4 * MiB) as thin:
            sim.url = sim.url.replace(str(port), str(thin))
            rig = RIGS["azure-page-blob"](sim, tmp_path, None)
            assert await held_by(rig) == "network"
