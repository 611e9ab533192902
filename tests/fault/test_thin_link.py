"""A thin uplink and a service that gives slow requests up: requests become smaller, and the disk gets there."""

import random
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.transfer import sizer
from appliance.sim.azure import AzureSim
from appliance.sim.faults import FaultPlan, Throttle
from imaging.units import MiB
from protocol.ops import AzurePageBlob, LocalShare, UploadArgs
from tests.support.azure_jobs import CONTAINER
from tests.support.stage_jobs import config_for, make_job
from tests.support.thin_proxy import thin_link

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

SIZE = 12 * MiB


async def test_a_thin_link_finishes_within_the_services_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 MiB at 2 MiB/s: eight requests of 4 MiB at once take 16 s each, and the service waits for one second."""
    monkeypatch.setattr(plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.05, cap_s=0.2))
    monkeypatch.setattr(sizer, "SLOW_S", 0.5)
    monkeypatch.setattr(sizer, "QUICK_S", 0.1)
    monkeypatch.setattr(sizer, "DEAD_BAND_S", 0.2)
    (tmp_path / "golden.raw").write_bytes(random.Random(2).randbytes(SIZE))
    plan = FaultPlan(throttle=Throttle(body_seconds=1.0))
    async with AzureSim(faults=plan) as sim:
        sim.make_container(CONTAINER)
        port = urlsplit(sim.url).port
        async with thin_link(port, rate=2 * MiB) as thin:
            endpoint = sim.blob_url.replace(str(port), str(thin))
            target = AzurePageBlob(endpoint=endpoint, container=CONTAINER, blob="golden.vhd")
            args = UploadArgs(
                source=LocalShare(name="disks"), path="golden.raw", format="raw", target=target,
                verify="none",
            )  # fmt: skip
            secrets = {"target.credential": {"account_key": sim.key}}
            job = make_job(args, config_for(share=tmp_path), secrets=secrets)
            outcome = await UploadStage().run(job)
        stored = bytes(sim.blob(CONTAINER, "golden.vhd").file.read(0, SIZE))
        assert stored == (tmp_path / "golden.raw").read_bytes()
        assert sim.stats.refusals["blob.put-page OperationTimedOut"] >= 1
    assert outcome.report["transfer"]["retries"] >= 1
