"""Every fault of a cloud ends in a bit-exact disk or in a named error; never in a short or wrong disk."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.aws import snapshot
from agent.targets.aws.s3 import AwsS3Target
from agent.targets.errors import ContentDiffers, DiskLost, TargetExists
from agent.targets.gcp.image import GcpImageTarget
from agent.transfer.errors import VerifyMismatch
from appliance.sim.faults import Fault, Throttle
from imaging.units import MiB
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import CLOUDS, GcpResumableRig, Rig, running

pytestmark = pytest.mark.fault

QUICK = RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=60.0)
OTHER = "ab" * 16


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same policy with shorter waits."""
    monkeypatch.setattr(plugins, "RetryPolicy", lambda: QUICK)


@pytest.fixture(params=CLOUDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path) as rig:
        yield rig


async def run(rig: Rig, *faults: Fault, throttle: Throttle | None = None, **options):
    rig.faults(*faults, throttle=throttle)
    return await UploadStage().run(rig.job(**options))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive's parts in order, so that the second one fails when the first is acknowledged."""
    for target in (GcpImageTarget, AwsS3Target):
        slow = replace(target.limits, inflight_start=1, inflight_max=1)
        monkeypatch.setattr(target, "limits", slow)


def refused(rig: Rig) -> Fault:
    """Return a write that is refused for good: the job fails in the middle."""
    nth = [2] if rig.is_archive else [3]
    return Fault(action="status", status=400, code="Nonsense", op=rig.write, nth=nth)


FAULTS = {
    "503": [Fault(action="status", status=503, code="ServerBusy", probability=0.5, limit=20)],
    "503-retry-after": [Fault(action="status", status=503, retry_after=0, nth=[1, 2])],
    "500": [Fault(action="status", status=500, code="OperationTimedOut", nth=[1, 3])],
    "drop-before-body": [Fault(action="drop-before-body", nth=[1, 4])],
    "drop-after-body": [Fault(action="drop-after-body", nth=[2, 3])],
    "answer-lost": [Fault(action="drop-after-write", nth=[1, 2, 5])],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
async def test_passing_faults_of_writes_end_bit_exact(rig: Rig, faults: list[Fault]) -> None:
    for fault in faults:
        fault.op = rig.write
    outcome = await run(rig, *faults)
    assert rig.stored() == rig.expected()
    assert sum(rig.sim.stats.faults.values()) >= 1
    assert outcome.report["verified"]["root"] == outcome.root


@pytest.mark.parametrize("action", ["truncate", "drop-after-write"])
async def test_passing_faults_of_reads_end_verified(rig: Rig, action: str) -> None:
    outcome = await run(rig, Fault(action=action, op=rig.read, nth=[1, 3]))
    assert outcome.report["verified"]["root"] == outcome.root


CONTROL = {
    "503": Fault(action="status", status=503, code="ServiceUnavailable", every=3),
    "500": Fault(action="status", status=500, code="InternalError", every=4),
    "answer-lost": Fault(action="drop-after-write", every=4),
    "torn": Fault(action="truncate", every=5),
    "trickle": Fault(action="trickle", seconds=0.01),
}


@pytest.mark.parametrize("fault", CONTROL.values(), ids=CONTROL.keys())
async def test_passing_faults_of_any_call_end_bit_exact(rig: Rig, fault: Fault) -> None:
    """Every third to fifth request of all kinds, the control plane's too; nothing is made twice."""
    store = MemoryJobStore()
    outcome = await run(rig, fault, store=store)
    rig.faults()
    assert rig.stored() == rig.expected()
    assert outcome.report["verified"]["root"] == outcome.root
    assert sum(rig.sim.stats.faults.values()) >= 3
    assert await UploadStage().clean_up(rig.job(store=store)) == []
    assert rig.left() == []


async def test_a_throttled_service_slows_us_down_and_gets_everything(rig: Rig) -> None:
    await run(rig, throttle=Throttle(requests_per_second=20))
    assert rig.stored() == rig.expected()


@pytest.mark.parametrize("action", ["flip-stored", "lose-write"])
async def test_a_service_that_loses_or_changes_bytes_is_found_out(rig: Rig, action: str) -> None:
    with pytest.raises((VerifyMismatch, ContentDiffers)):
        await run(rig, Fault(action=action, op=rig.write, nth=[2]))


async def test_expired_credentials_are_renewed(rig: Rig) -> None:
    if rig.kind.startswith("aws"):
        role = {"role_arn": rig.sim.access.role_arn, "external_id": "imageport-external"}
        options = {"credential": {**rig.sim.keys(), **role}}
    else:
        options = {}
    action = "expire-sas" if rig.kind.startswith("azure") else "expire-credentials"
    outcome = await run(rig, Fault(action=action, op=rig.write, nth=[2]), **options)
    assert rig.stored() == rig.expected()
    assert outcome.root


@pytest.mark.usefixtures("one_at_a_time")
async def test_a_second_attempt_sends_only_what_was_not_acknowledged(rig: Rig) -> None:
    store = MemoryJobStore()
    with pytest.raises(AgentError, match="Nonsense"):
        await run(rig, refused(rig), store=store)
    assert store.receipts
    outcome = await run(rig, store=store, attempt=2)
    assert rig.stored() == rig.expected()
    moved = outcome.report["transfer"]
    if isinstance(
        rig, GcpResumableRig
    ):  # a part ends between two steps: packed again, not sent again
        assert rig.sim.stats.bytes_received == rig.sim.stats.bytes_stored
        assert rig.sim.stats.bytes_stored == next(iter(rig.sim.state.images.values())).archive_bytes
        return
    assert moved["skipped"] > 0
    assert moved["sent"] <= moved["total"] - moved["skipped"] + 4 * MiB  # whole blocks


async def test_a_disk_deleted_under_us_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "UNSEEN_S", 0.0)
    codes = {
        "aws-snapshot": "ResourceNotFoundException/SNAPSHOT_NOT_FOUND",
        "gcp-image": "NoSuchUpload",
        "aws-s3": "NoSuchUpload",
    }
    code = codes.get(rig.kind, "BlobNotFound")
    with pytest.raises(DiskLost):
        await run(rig, Fault(action="status", status=404, code=code, op=rig.write, nth=[2]))


async def test_cleaning_up_deletes_the_unfinished_object(rig: Rig) -> None:
    store = MemoryJobStore()
    with pytest.raises(AgentError, match="Nonsense"):
        await run(rig, refused(rig), store=store)
    assert rig.left()
    rig.faults()
    assert await UploadStage().clean_up(rig.job(store=store)) == []
    assert store.objects == {}
    assert rig.left() == []
    await run(rig, origin=OTHER)  # the name is free again


async def test_reading_back_asks_only_for_what_the_service_holds(rig: Rig) -> None:
    outcome = await run(rig)
    footer = 512 if rig.kind.startswith("azure") else 0
    padding = (
        512 * 1024 if rig.kind == "aws-snapshot" else 0
    )  # the last block, of which a sector is data
    read = rig.sim.stats.bytes_read
    assert read <= rig.sim.stats.bytes_stored - footer + padding
    assert outcome.report["verified"]["bytes_read"] <= read


async def test_a_retry_after_a_mismatch_begins_with_a_new_object(rig: Rig) -> None:
    store = MemoryJobStore()
    wrong = Fault(action="flip-stored", op=rig.write, nth=[2], limit=1)
    with pytest.raises((VerifyMismatch, ContentDiffers)):
        await run(rig, wrong, store=store)
    assert store.intents()  # the result names it as left behind
    outcome = await run(rig, store=store, attempt=2)
    assert rig.stored() == rig.expected()
    assert outcome.report["transfer"]["skipped"] == 0


async def test_another_job_may_take_the_place_of_a_wrong_disk(rig: Rig) -> None:
    wrong = Fault(action="flip-stored", op=rig.write, nth=[2], limit=1)
    with pytest.raises((VerifyMismatch, ContentDiffers)):
        await run(rig, wrong)
    if not rig.is_archive:  # no image was made there: the name is free
        with pytest.raises(TargetExists):
            await run(rig, origin=OTHER)
    await run(rig, origin="cd" * 16, options={"if_exists": "resume"})
    assert rig.stored() == rig.expected()


class Killed(Exception):
    """The process is gone."""


class KilledStore(MemoryJobStore):
    """Takes one thing about a wrong disk, then nothing any more."""

    dead = False

    async def checkpoint(self, data: Mapping[str, Any]) -> None:
        self._write(last=bool(data.get("rejected")))
        await super().checkpoint(data)

    async def forget_receipts(self) -> None:
        self._write(last=bool(self.receipts))  # an upload begins with none
        await super().forget_receipts()

    def _write(self, *, last: bool) -> None:
        if self.dead:
            raise Killed
        self.dead = last


async def test_a_kill_while_a_wrong_disk_is_rejected_loses_nothing(rig: Rig) -> None:
    store = KilledStore()
    wrong = Fault(action="flip-stored", op=rig.write, nth=[2], limit=1)
    with pytest.raises(Killed):
        await run(rig, wrong, store=store)
    after = MemoryJobStore(store.receipts, store.objects, store.data)
    outcome = await run(rig, store=after, attempt=2)
    assert rig.stored() == rig.expected()
    assert outcome.report["verified"]["root"] == outcome.root
