"""A preflight over every target: what would be made and what is missing, and nothing is there afterwards."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.stages.preflight import PreflightStage
from agent.stages.upload import UploadStage
from agent.targets import permissions
from protocol.ops import PreflightArgs
from tests.support.azure_jobs import SIZE
from tests.support.rigs import RIGS, Rig, running

pytestmark = pytest.mark.e2e


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path) as rig:
        yield rig


async def plan(rig: Rig, **options) -> dict:
    job = rig.job(**options)
    args = PreflightArgs(**{name: getattr(job.args, name) for name in job.args.__struct_fields__})
    outcome = await PreflightStage().run(replace(job, args=args))
    return outcome.report["plan"]


async def test_it_says_what_would_be_and_makes_nothing(rig: Rig) -> None:
    found = await plan(rig)
    assert found["problems"] == found["missing"] == []
    assert any("golden" in made for made in found["objects"])
    assert found["virtual_size"] == SIZE
    assert 0 < found["bytes"] < SIZE
    assert found["requests"] >= 1
    assert (found["cost_usd"] is None) == (rig.kind == "local")
    assert rig.left() == []


async def test_what_is_there_is_a_problem_with_its_fix(rig: Rig) -> None:
    await UploadStage().run(rig.job())
    left = rig.left()
    found = await plan(rig, origin="ab" * 16)
    assert [problem["code"] for problem in found["problems"]] == ["target.exists"]
    assert found["problems"][0]["fix"]
    assert rig.left() == left


MISSING = {
    "azure-disk": "Microsoft.Compute/disks/write",
    "aws-snapshot": "ec2:DeleteSnapshot",
    "aws-s3": "ec2:ImportSnapshot",
    "gcp-image": "compute.images.create",
}


@pytest.mark.parametrize("kind", MISSING)
async def test_a_missing_permission_is_named_before_anything_is_made(
    kind: str, tmp_path: Path
) -> None:
    async with running(kind, tmp_path) as rig:
        if kind.startswith("aws"):
            deny = {"Effect": "Deny", "Action": MISSING[kind]}
            allow = {"Effect": "Allow", "Action": "*"}
            rig.sim.set_policy({"Statement": [deny, allow]})
        else:
            role = (await plan(rig))["missing"]
            assert role == []
            granted = permissions.role_of(kind.split("-", maxsplit=1)[0]).all
            rig.sim.set_permissions([one for one in granted if one != MISSING[kind]])
        found = await plan(rig)
        assert found["missing"] == [MISSING[kind]]
        assert rig.left() == []
