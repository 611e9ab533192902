"""What only EBS and EC2 do to an upload: snapshots that are not known yet or time out, billing, clocks, sizes."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.aws.building import BillingPlatform, ImportFailed, StrategyRefused
from agent.targets.aws.snapshot import SnapshotDisk
from agent.targets.errors import ClockRefused, EndpointForbidden, QuotaExceeded, SizeDiffers
from appliance.sim.aws import AwsSim
from appliance.sim.aws.images import Images
from appliance.sim.faults import Fault
from imaging.units import GiB
from tests.support.aws_jobs import AwsJobs
from tests.support.azure_jobs import write_source
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import Rig, running

pytestmark = pytest.mark.fault

OTHER = "ab" * 16


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=60.0)
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("aws-snapshot", tmp_path) as rig:
        yield rig


async def run(rig: Rig, *faults: Fault, **options):
    rig.faults(*faults)
    return await UploadStage().run(rig.job(**options))


async def test_a_snapshot_that_is_not_known_yet_is_waited_for(tmp_path: Path) -> None:
    async with running("aws-snapshot", tmp_path, unseen_s=0.5) as rig:
        outcome = await run(rig)
        assert rig.stored() == rig.expected()
        assert rig.sim.stats.refusals["ebs.put-block ResourceNotFoundException/SNAPSHOT_NOT_FOUND"]
        assert outcome.report["transfer"]["retries"] >= 1


async def test_an_unfinished_snapshot_that_timed_out_is_begun_anew(rig: Rig) -> None:
    store = MemoryJobStore()
    refuse = Fault(action="status", status=400, code="Nonsense", op=rig.write, nth=[3])
    with pytest.raises(AgentError, match="Nonsense"):
        await run(rig, refuse, store=store)
    (lost,) = rig.sim.vault.state.snapshots.keys() - _stock(rig)
    rig.sim.vault.state.snapshots[lost].touched -= 4321 * 60
    outcome = await run(rig, store=store, attempt=2)
    assert rig.stored() == rig.expected()
    assert outcome.outputs[0].value["id"] != lost
    assert outcome.report["transfer"]["skipped"] == 0  # nothing of the lost one is trusted


def _stock(rig: Rig) -> set[str]:
    return {i.snapshot for i in rig.sim.vault.state.images.values() if i.owner == "amazon"}


async def test_an_image_that_would_be_billed_as_another_platform_is_removed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = SnapshotDisk.finish

    async def licensed(disk: SnapshotDisk):
        for snapshot in rig.sim.vault.state.snapshots.values():
            snapshot.licensed = snapshot.licensed or "RunInstances:0002"
        return await finish(disk)

    monkeypatch.setattr(SnapshotDisk, "finish", licensed)
    store = MemoryJobStore()
    with pytest.raises(BillingPlatform, match="Windows"):
        await run(rig, target={"strategy": "register-image"}, store=store)
    assert not [i for i in rig.sim.vault.state.images.values() if i.owner == "self"]
    assert [intent.kind for intent in store.intents()] == ["aws.snapshot"]  # named as left behind


@pytest.mark.parametrize(
    "wanted",
    [
        {"strategy": "register-image", "os_type": "Windows"},
        {"strategy": "import-image", "os_type": "Linux"},
        {"strategy": "import-image", "os_type": "Windows", "boot_mode": "uefi-preferred"},
        {"strategy": "instance-swap", "os_type": "Windows"},
    ],
    ids=["windows-registered", "linux-imported", "uefi-preferred", "swap-without-image"],
)
async def test_a_strategy_that_does_not_fit_is_refused_before_anything_is_made(
    rig: Rig, wanted: dict
) -> None:
    with pytest.raises(StrategyRefused):
        await run(rig, target=wanted)
    assert rig.left() == []


@pytest.mark.parametrize("ahead_s", [900, -900], ids=["ahead", "behind"])
async def test_a_wrong_clock_of_ours_signs_by_signed_time(tmp_path: Path, ahead_s: int) -> None:
    write_source(tmp_path)
    async with AwsSim(clock=lambda: time.time() - ahead_s) as sim:
        jobs = AwsJobs(sim, tmp_path)
        signed = lambda: int((time.time() - ahead_s) * 1000)  # noqa: E731
        outcome = await UploadStage().run(jobs.snapshot_job(now_ms=signed))
        assert outcome.root
        with pytest.raises(ClockRefused):  # what would happen by this machine's clock
            await UploadStage().run(jobs.snapshot_job(origin=OTHER))


async def test_our_own_snapshot_of_another_size_is_noticed(rig: Rig) -> None:
    store = MemoryJobStore()
    refuse = Fault(action="status", status=400, code="Nonsense", op=rig.write, nth=[3])
    with pytest.raises(AgentError, match="Nonsense"):
        await run(rig, refuse, store=store)
    store.data = None
    with (rig.share / "golden.raw").open("r+b") as file:
        file.truncate(GiB + 512)
    with pytest.raises(SizeDiffers, match="GiB"):
        await run(rig, store=store, attempt=2)


async def test_a_quota_needs_an_operator_and_names_the_action(rig: Rig) -> None:
    full = Fault(action="status", status=402, code="ServiceQuotaExceededException", op="ebs.start*")
    with pytest.raises(QuotaExceeded, match="StartSnapshot"):
        await run(rig, full)
    assert rig.left() == []


async def test_a_service_that_answers_garbage_is_tried_again(rig: Rig) -> None:
    outcome = await run(rig, Fault(action="corrupt", op="*", nth=[2, 5, 9, 14]))
    assert rig.stored() == rig.expected()
    assert outcome.report["verified"]["root"] == outcome.root


async def test_an_image_import_that_failed_is_begun_anew_by_a_retry(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Images, _now: float) -> None:
        for task in self._vault.state.tasks.values():
            task.failed = task.failed or "ClientError: no valid partitions"

    store, target = MemoryJobStore(), {"strategy": "import-image", "os_type": "Windows"}
    with monkeypatch.context() as broken:
        broken.setattr(Images, "_settle", fail)
        with pytest.raises(ImportFailed, match="no valid partitions"):
            await run(rig, store=store, target=target)
    outcome = await run(rig, store=store, target=target, attempt=2)
    assert outcome.outputs[0].value["platform_details"] == "Windows"
    assert len(rig.sim.vault.state.tasks) == 2


@pytest.mark.parametrize("kind", ["aws-snapshot", "aws-s3"])
async def test_an_account_that_policy_does_not_name_gets_nothing(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as rig:
        for accounts, refused in ((("999*",), True), (("999*", rig.sim.identity.account), False)):
            job = rig.job()
            policy = replace(job.config.policy, subscriptions=accounts)
            object.__setattr__(job, "config", replace(job.config, policy=policy))
            if refused:
                with pytest.raises(EndpointForbidden, match=rig.sim.identity.account):
                    await UploadStage().run(job)
                assert rig.left() == []
            else:
                await UploadStage().run(job)
