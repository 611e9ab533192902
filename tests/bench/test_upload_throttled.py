"""A service that is far away, throttles and fails: what share of its cap an upload gets. Prints; asserts no speed.

100 ms a request, one of twenty answered 503, and so many MiB a second at most (BENCH_CAP, 40); the simulator counts.
Goal: 0.85 of the cap. BENCH_MIB sets the data (800).
"""

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from agent.stages.upload import UploadStage
from agent.targets.aws import building
from appliance.sim.base import Simulator
from appliance.sim.faults import Fault, FaultPlan, Throttle
from imaging.units import MiB
from tests.support.rigs import CLOUDS, Rig
from tests.support.simthread import running_sim

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

DATA = int(os.environ.get("BENCH_MIB", "800")) * MiB
CAP = int(os.environ.get("BENCH_CAP", "40"))


def _make(kind: str) -> type[Simulator]:
    return type(CLOUDS[kind].make_sim())


@pytest.mark.parametrize("kind", ["azure-page-blob", "aws-snapshot", "gcp-image", "aws-s3"])
def test_share_of_the_cap(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "POLL_S", 0.05)
    with (tmp_path / "golden.raw").open("wb") as file:
        for _ in range(DATA // (8 * MiB)):
            file.write(random.randbytes(8 * MiB))
    with running_sim(_make(kind), state_dir=tmp_path / "sim") as sim:
        if kind == "azure-page-blob":
            sim.make_container("vhds")
        rig: Rig = CLOUDS[kind](sim, tmp_path, None)
        faults = [
            Fault(action="delay", seconds=0.1, op=rig.write),
            Fault(action="status", status=503, code="ServerBusy", probability=0.05, op=rig.write),
        ]
        sim.set_faults(FaultPlan(fault=faults, throttle=Throttle(mib_per_second=CAP)))
        outcome = asyncio.run(UploadStage().run(rig.job(options={"verify": "none"})))
    transfer, seconds = outcome.report["transfer"], outcome.report["seconds"]["transfer"]
    rate = transfer["sent"] / MiB / seconds
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kind:16} {rate:5.1f} of {CAP} MiB/s: {rate / CAP:.2f} (goal 0.85),"
            f" {transfer['retries']} retries, held back by {transfer['held_by']}\n"
        )
