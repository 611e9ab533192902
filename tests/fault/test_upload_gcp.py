"""What only Cloud Storage and Compute Engine do to an upload: CRCs of parts and objects, clocks, bad images."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.errors import ContentDiffers, CredentialRefused, TargetExists, TargetNotFound
from agent.targets.gcp.compute import ImageFailed
from agent.targets.gcp.gcs import GcsBucket
from appliance.sim.faults import Fault
from appliance.sim.gcp import GcpSim, archive
from appliance.sim.gcp import compute as sim_compute
from tests.support.azure_jobs import write_source
from tests.support.gcp_jobs import GcpJobs
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import Rig, running

pytestmark = pytest.mark.fault


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "RetryPolicy", lambda: RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=60.0)
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("gcp-image", tmp_path) as rig:
        yield rig


async def run(rig: Rig, *faults: Fault, **options):
    rig.faults(*faults)
    return await UploadStage().run(rig.job(**options))


async def test_the_services_crc_of_the_whole_archive_is_compared(rig: Rig) -> None:
    """Nothing is read back here: the object's CRC-32C alone finds it."""
    wrong = Fault(action="flip-stored", op=rig.write, nth=[2])
    with pytest.raises(ContentDiffers, match="CRC-32C"):
        await run(rig, wrong, options={"verify": "none"})
    assert not rig.sim.state.images


async def test_a_part_that_the_service_took_otherwise_is_sent_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the header that lets the service refuse it, its own CRC in the answer still says so."""
    told = []
    differs = GcsBucket.checksum_differs

    def once(bucket: GcsBucket, sent, answered) -> bool:
        answered = dict(answered)
        if not told:
            answered["x-goog-hash"] = "crc32c=AAAAAA=="
        told.append(answered["x-goog-hash"])
        return differs(bucket, sent, answered)

    monkeypatch.setattr(GcsBucket, "checksum_differs", once)
    outcome = await run(rig)
    assert rig.stored() == rig.expected()
    assert outcome.report["transfer"]["retries"] == 1


@pytest.mark.parametrize("ahead_s", [900, -900], ids=["ahead", "behind"])
async def test_a_wrong_clock_of_ours_signs_by_signed_time(tmp_path: Path, ahead_s: int) -> None:
    write_source(tmp_path)
    async with GcpSim(clock=lambda: time.time() - ahead_s) as sim:
        jobs = GcpJobs(sim, tmp_path)
        signed = lambda: int((time.time() - ahead_s) * 1000)  # noqa: E731
        assert (await UploadStage().run(jobs.image_job(now_ms=signed))).root
    if ahead_s > 0:  # an assertion of the future; one that ended long ago is the other way round
        async with GcpSim(clock=lambda: time.time() - ahead_s) as sim:
            with pytest.raises(CredentialRefused, match="iat"):
                await UploadStage().run(GcpJobs(sim, tmp_path).image_job())


async def test_an_archive_that_google_does_not_take_is_named_and_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(pieces, folder):
        folder.mkdir()
        raise archive.BadArchive("the disk is of 77 bytes")

    monkeypatch.setattr(sim_compute, "unpack", refuse)
    store = MemoryJobStore()
    with pytest.raises(ImageFailed, match="77 bytes"):
        await run(rig, store=store)
    assert "gcp.object" in [intent.kind for intent in store.intents()]
    monkeypatch.undo()
    rig.sim.stats.reset()
    await run(rig, store=store, attempt=2)  # proven already: only the image is made
    assert rig.stored() == rig.expected()
    assert rig.sim.stats.bytes_received == 0


async def test_a_missing_bucket_is_named(rig: Rig) -> None:
    job = rig.job()
    rig.sim.state.buckets.clear()
    with pytest.raises(TargetNotFound, match="bucket"):
        await UploadStage().run(job)


async def test_an_image_that_somebody_made_meanwhile_is_not_taken_for_ours(rig: Rig) -> None:
    await run(rig)
    rig.sim.state.images["golden"].labels = {}
    with pytest.raises(TargetExists):
        await run(rig, origin="ab" * 16)
