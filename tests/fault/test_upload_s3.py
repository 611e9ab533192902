"""What only S3 and VM Import do to an upload: imports that fail, steps that are refused, keys, parts of large disks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.aws.building import ImportFailed
from agent.targets.errors import TargetExists, TargetNotFound
from agent.targets.multipart import MAX_PARTS, part_size
from appliance.sim.aws.imports import Imports
from appliance.sim.faults import Fault
from imaging.errors import InvalidImage
from imaging.units import GiB, MiB, TiB
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import Rig, running

pytestmark = pytest.mark.fault

OTHER = "ab" * 16
LINUX = {"os_type": "Linux", "strategy": "register-image"}
OBJECT = {"strategy": "object-only"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=60.0)
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("aws-s3", tmp_path, task_s=0.05) as rig:
        yield rig


async def test_an_import_that_failed_is_begun_anew_by_a_retry(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> str:
        raise InvalidImage("the service role may not read the bucket")

    store = MemoryJobStore()
    with monkeypatch.context() as broken:
        broken.setattr(Imports, "_snapshot", refuse)
        for attempt in (1, 2):
            with pytest.raises(ImportFailed, match="may not read the bucket"):
                await UploadStage().run(rig.job(store=store, attempt=attempt))
    rig.sim.stats.reset()
    await UploadStage().run(rig.job(store=store, attempt=3))
    assert rig.stored() == rig.expected()
    assert rig.sim.stats.bytes_received == 0  # the object was there, and proven
    assert len(rig.left()) == 1


@pytest.mark.parametrize("target", [{}, LINUX, OBJECT], ids=["snapshot", "image", "object"])
async def test_a_job_refused_at_any_control_call_goes_on_from_there(rig: Rig, target) -> None:
    """As after a kill at each of them; every attempt gets one call further, and nothing is made twice."""
    store, first = MemoryJobStore(), len(rig.left())
    for attempt in range(1, 40):
        fault = Fault(action="status", status=400, code="Nonsense", op="ec2.call", nth=[attempt])
        rig.faults(fault)
        try:
            await UploadStage().run(rig.job(target=target, store=store, attempt=attempt))
        except AgentError as err:
            if "Nonsense" not in str(err):
                raise
            continue
        break
    rig.faults()
    expected = {"snapshot": 1, "image": 2, "object": 1}[
        "image" if target == LINUX else "object" if target == OBJECT else "snapshot"
    ]
    assert len(rig.left()) == first + expected
    assert await UploadStage().clean_up(rig.job(target=target, store=store)) == []
    assert len(rig.left()) == first


@pytest.mark.parametrize("target", [{}, LINUX], ids=["snapshot", "image"])
async def test_what_is_cut_off_at_any_control_call_is_taken_back(rig: Rig, target) -> None:
    for number in range(1, 14):
        store, origin = MemoryJobStore(), f"{number:032x}"
        rig.faults(Fault(action="status", status=400, code="Nonsense", op="ec2.call", nth=[number]))
        try:
            await UploadStage().run(rig.job(target=target, store=store, origin=origin))
        except AgentError:
            rig.faults()
            job = rig.job(target=target, store=store, origin=origin)
            assert await UploadStage().clean_up(job) == [], number
            assert rig.left() == [], number
        else:
            return
    raise AssertionError("no upload came to its end")


async def test_an_object_of_that_name_is_found_whoever_made_it(rig: Rig) -> None:
    await UploadStage().run(rig.job(target=OBJECT))
    with pytest.raises(TargetExists, match="golden-0f0f"):
        await UploadStage().run(rig.job(target=OBJECT, origin=OTHER))
    again = await UploadStage().run(
        rig.job(target=OBJECT, origin=OTHER, options={"if_exists": "new-version"})
    )
    assert "golden-v2-" in again.outputs[0].value["id"]
    other = {**OBJECT, "prefix": "elsewhere/"}
    await UploadStage().run(rig.job(target=other, origin=OTHER))


async def test_a_bucket_that_is_not_there_is_named_before_anything_is_made(rig: Rig) -> None:
    with pytest.raises(TargetNotFound, match="NoSuchBucket"):
        await UploadStage().run(rig.job(target={"bucket": "nowhere"}))


async def test_the_object_stays_when_it_is_to_be_kept(rig: Rig) -> None:
    outcome = await UploadStage().run(rig.job(target={"keep_object": True}))
    assert outcome.outputs[0].value["object_kept"] is True
    assert len(rig.sim.vault.state.objects) == 1


@pytest.mark.parametrize("size", [MiB, 100 * GiB, 360 * GiB, TiB, 2 * TiB, 16 * TiB])
def test_ten_thousand_parts_hold_a_disk_that_does_not_compress(size: int) -> None:
    room = sum(part_size(number, size) for number in range(1, MAX_PARTS + 1))
    assert room > size + size // 64
    assert part_size(1, size) >= 8 * MiB
    if size <= 100 * GiB:
        assert part_size(1, size) == 8 * MiB
