"""The least roles: with exactly them every upload ends well and is undone; without any one, it fails and names it."""

from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.permissions import (
    AWS_STRATEGIES,
    AZURE_RESULTS,
    GCP_UPLOADS,
    OBJECT_ONLY,
    Role,
    aws_role,
    aws_s3_role,
    azure_role,
    gcp_role,
)
from appliance.cli.permissions import aws_policy
from protocol.ops import AzureGallery
from tests.support.aws_jobs import AwsJobs
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import AwsRig, Rig, running

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=10.0)
    )


def grant(rig: Rig, role: Role, *, without: str = "") -> None:
    actions = [action for action in role.all if action != without]
    if rig.kind.startswith("aws"):
        policy = aws_policy(Role("aws", tuple(actions), ()))
        rig.sim.set_policy(policy)
    else:
        rig.sim.set_permissions(actions)


def job(rig: Rig, strategy: str, **options):
    if rig.kind == "azure-disk":
        target = {"result": strategy}
        if strategy == "image-version":
            target["gallery"] = AzureGallery(name="golden", image="win11", version="1.0.0")
        return rig.job(target=target, **options)
    if not isinstance(rig, AwsRig):
        return rig.job(target={"upload": strategy}, **options)
    jobs = AwsJobs(rig.sim, rig.share, rig.ca_file)
    linux = strategy in ("register-image", "snapshot-only", "object-only")
    target = {"strategy": strategy, "os_type": "Linux" if linux else "Windows"}
    if strategy == "instance-swap":
        target["swap"] = jobs.swap()
    if rig.kind == "aws-s3":
        return rig.job(target=target, **options)
    return jobs.snapshot_job(target=target, **options)


CASES = {
    **{f"azure-{result}": ("azure-disk", result, azure_role(result)) for result in AZURE_RESULTS},
    **{f"gcp-{upload}": ("gcp-image", upload, gcp_role(upload)) for upload in GCP_UPLOADS},
    **{f"aws-{name}": ("aws-snapshot", name, aws_role(name)) for name in AWS_STRATEGIES},
    **{
        f"s3-{name}": ("aws-s3", name, aws_s3_role(name)) for name in (*AWS_STRATEGIES, OBJECT_ONLY)
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_the_least_role_is_enough_and_nothing_of_it_is_too_much(
    case: tuple[str, str, Role], tmp_path: Path
) -> None:
    kind, strategy, role = case
    slow = (
        {"lro_seconds": 0.05} if kind in ("gcp-image", "azure-disk") else {}
    )  # so that operations are polled
    async with running(kind, tmp_path, **slow) as rig:
        store = MemoryJobStore()
        if kind == "azure-disk":
            rig.sim.make_gallery("golden")
        grant(rig, role)
        await UploadStage().run(job(rig, strategy, store=store))
        assert await UploadStage().clean_up(job(rig, strategy, store=store)) == []
        assert rig.left() == []
        for number, action in enumerate(role.needed):
            grant(rig, role, without=action)
            store = MemoryJobStore()
            with pytest.raises(AgentError) as caught:
                await UploadStage().run(job(rig, strategy, store=store, origin=f"{number:032x}"))
            assert caught.value.code == "target.forbidden", (action, str(caught.value))
            assert action in str(caught.value)
            grant(rig, role)
            assert (
                await UploadStage().clean_up(
                    job(rig, strategy, store=store, origin=f"{number:032x}")
                )
                == []
            )
            assert rig.left() == [], action
