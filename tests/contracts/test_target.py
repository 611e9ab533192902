"""What every target has to do, asked of each over its simulator: a new target adds one rig (tests/support/rigs.py)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.stages.upload import UploadStage
from agent.targets.errors import IfExistsUnsupported, NotOurs, TargetExists
from imaging.units import MiB
from tests.support.azure_jobs import SIZE
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import CLOUDS, RIGS, Rig, running

OTHER = "ab" * 16


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path) as rig:
        yield rig


async def run(rig: Rig, **options):
    return await UploadStage().run(rig.job(**options))


async def test_the_disk_is_exact_and_proven(rig: Rig) -> None:
    outcome = await run(rig)
    assert rig.stored() == rig.expected()
    assert outcome.report["verified"]["root"] == outcome.root
    value = outcome.outputs[0].value
    assert value["virtual_size"] == SIZE
    assert value["padded_size"] == (SIZE if rig.kind == "local" else rig.padded)
    assert value.get("service_checksum", "") == rig.checksum


async def test_only_data_moves(rig: Rig) -> None:
    outcome = await run(rig)
    assert outcome.report["transfer"]["sent"] < 10 * MiB
    assert outcome.report["transfer"]["skipped"] == 0


async def test_what_is_there_is_refused_and_stays(rig: Rig) -> None:
    await run(rig)
    left = rig.left()
    with pytest.raises(TargetExists):
        await run(rig, origin=OTHER)
    assert rig.left() == left


async def test_new_version_takes_the_next_name(rig: Rig) -> None:
    await run(rig)
    outcome = await run(rig, origin=OTHER, options={"if_exists": "new-version"})
    name = outcome.outputs[0].value["name"]
    assert "golden" in name
    assert "v2" in name


async def test_replace_swaps_or_is_refused_by_name(rig: Rig) -> None:
    await run(rig)
    if rig.kind in ("local", "azure-page-blob"):
        await run(rig, origin=OTHER, options={"if_exists": "replace"})
    else:
        with pytest.raises(IfExistsUnsupported, match="rename"):
            await run(rig, origin=OTHER, options={"if_exists": "replace"})
    assert rig.stored() == rig.expected()


async def test_another_appliances_object_is_never_touched(rig: Rig) -> None:
    await run(rig)
    left = rig.left()
    job = rig.job(origin=OTHER, options={"if_exists": "replace"})
    object.__setattr__(job, "tag_key", b"x" * 32)
    with pytest.raises((NotOurs, TargetExists)):
        await UploadStage().run(job)
    assert rig.left() == left


async def test_a_finished_job_that_runs_again_sends_nothing(rig: Rig) -> None:
    """Killed between finishing and reporting: what is proven is not sent, read or made a second time."""
    store = MemoryJobStore()
    first = await run(rig, store=store)
    left = rig.left()
    if rig.sim is not None:
        rig.sim.stats.reset()
    again = await run(rig, store=store, attempt=2)
    assert again.root == first.root
    assert again.outputs[0].value["id"] == first.outputs[0].value["id"]
    assert rig.left() == left
    if rig.sim is not None:
        assert rig.sim.stats.bytes_received == rig.sim.stats.bytes_read == 0


async def test_cleaning_up_leaves_nothing(rig: Rig) -> None:
    store = MemoryJobStore()
    await run(rig, store=store)
    assert rig.left()
    assert await UploadStage().clean_up(rig.job(store=store)) == []
    assert rig.left() == []
    assert store.objects == {}
    assert await UploadStage().clean_up(rig.job(store=store)) == []  # twice is once
    await run(rig, origin=OTHER)  # the name is free again


async def test_cleaning_up_leaves_what_another_line_made(rig: Rig) -> None:
    store = MemoryJobStore()
    await run(rig, store=store)
    left = rig.left()
    reasons = await UploadStage().clean_up(rig.job(store=store, origin=OTHER))
    if rig.kind == "gcp-image":
        assert "labels" in reasons[0]
    else:
        assert "owner tag" in reasons[0]
    assert rig.left() == left


@pytest.mark.parametrize("verify", ["sample", "none"])
async def test_a_lesser_proof_says_what_it_is(rig: Rig, verify: str) -> None:
    outcome = await run(rig, options={"verify": verify})
    assert rig.stored() == rig.expected()
    proof = outcome.report["verified"]
    assert proof is None if verify == "none" else (proof["mode"], proof["root"]) == ("sample", None)


@pytest.mark.parametrize("kind", CLOUDS)
async def test_a_wrong_credential_is_named_and_never_shown(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as rig:
        with pytest.raises(AgentError) as caught:
            await run(rig, credential=rig.wrong_credential())
        assert caught.value.code in (
            "target.credential-refused",
            "target.clock",
            "target.forbidden",
        )
        assert "private_key" not in str(caught.value)
        assert rig.sim.stats.bytes_received == 0
        assert rig.left() == []


@pytest.mark.parametrize("kind", CLOUDS)
async def test_a_credential_of_another_shape_names_the_right_ones(
    kind: str, tmp_path: Path
) -> None:
    async with running(kind, tmp_path) as rig:
        with pytest.raises(AgentError, match="expected") as caught:
            await run(rig, credential={"passphrase": "hunter2"})
        assert "hunter2" not in str(caught.value)
