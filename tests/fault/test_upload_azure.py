"""Every fault of the target ends in a bit-exact disk or in a named error; never in a short or wrong disk."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.azure.page_blob import PageBlobDisk
from agent.targets.errors import (
    SizeDiffers,
    TargetNotFound,
)
from agent.transfer.errors import VerifyMismatch
from appliance.sim.azure import AzureSim, pageblob
from appliance.sim.call import Refusal
from appliance.sim.faults import Fault, FaultPlan, Throttle
from imaging.units import MiB
from tests.support.azure_jobs import CONTAINER, SIZE, Uploads, self_signed, write_source
from tests.support.job_store import MemoryJobStore

pytestmark = pytest.mark.fault

PADDED = 34 * MiB
QUICK = RetryPolicy(base_s=0.01, cap_s=0.05, patience_s=60.0)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same policy with shorter waits."""
    monkeypatch.setattr(plugins, "RetryPolicy", lambda: QUICK)


@pytest.fixture(params=["page-blob", "disk"])
async def uploads(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Uploads]:
    """One source, one simulator over TLS, both kinds of target in turn."""
    ca_file, tls = self_signed(tmp_path)
    share = tmp_path / "share"
    share.mkdir()
    write_source(share)
    async with AzureSim(tls=tls, state_dir=tmp_path / "azure") as sim:
        sim.make_container(CONTAINER)
        made = Uploads(sim, share, ca_file)
        made.kind = request.param
        yield made


def job(uploads: Uploads, **options):
    return (uploads.blob_job if uploads.kind == "page-blob" else uploads.disk_job)(**options)


def stored(uploads: Uploads, name: str | None = None) -> bytes:
    """Return what the simulator holds, without the footer."""
    sim = uploads.sim
    if uploads.kind == "page-blob":
        file = sim.blob(CONTAINER, name or "golden.vhd").file
    else:
        file = sim.disk_blob(name or "golden").file
    data = bytes(file.read(0, PADDED + 512))
    assert data[PADDED : PADDED + 8] == b"conectix"
    return data[:PADDED]


def expected(uploads: Uploads) -> bytes:
    return uploads.source_bytes() + bytes(PADDED - SIZE)


def op(uploads: Uploads, name: str) -> str:
    return ("disk." if uploads.kind == "disk" else "blob.") + name


async def run(uploads: Uploads, *faults: Fault, throttle: Throttle | None = None, **options):
    uploads.sim.set_faults(FaultPlan(seed=3, fault=list(faults), throttle=throttle or Throttle()))
    return await UploadStage().run(job(uploads, **options))


LISTS = {
    "503": Fault(action="status", status=503, code="ServerBusy", nth=[1]),
    "503-in-the-middle": Fault(action="status", status=503, code="ServerBusy", nth=[2, 4]),
    "torn": Fault(action="truncate", nth=[1, 3]),
}


@pytest.mark.parametrize("fault", LISTS.values(), ids=LISTS.keys())
async def test_a_list_of_page_ranges_that_breaks_off_is_asked_for_again(
    uploads: Uploads, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pageblob, "MAX_RANGES", 1)  # an answer tells one range
    fault.op = op(uploads, "get-page-ranges")
    outcome = await run(uploads, fault)
    assert sum(uploads.sim.stats.faults.values()) == len(fault.nth)
    assert outcome.report["verified"]["root"] == outcome.root
    assert uploads.sim.stats.bytes_read == uploads.sim.stats.bytes_stored - 512


async def test_a_service_that_takes_no_checksums_may_refuse_several_writes_at_once(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def refuse(chunks: object) -> str:
        refused.append(chunks)
        raise Refusal(400, "UnsupportedHeader", "One of the headers is not supported.")

    monkeypatch.setattr(pageblob, "crc64_header", refuse)
    outcome = await run(uploads)
    assert len(refused) > 1
    assert stored(uploads) == expected(uploads)
    assert outcome.outputs[0].value["service_checksum"] == "none"


@pytest.mark.parametrize("ahead_s", [600, -600], ids=["ahead", "behind"])
async def test_a_wrong_clock_of_ours_makes_no_wrong_sas(tmp_path: Path, ahead_s: int) -> None:
    """A SAS that begins in the service's future is refused as a wrong credential."""
    share = tmp_path / "share"
    share.mkdir()
    write_source(share)
    async with AzureSim(state_dir=tmp_path / "azure", clock=lambda: time.time() - ahead_s) as sim:
        sim.make_container(CONTAINER)
        signed = lambda: int((time.time() - ahead_s) * 1000)  # noqa: E731
        outcome = await UploadStage().run(Uploads(sim, share).blob_job(now_ms=signed))
    assert outcome.root


async def test_cleaning_up_leaves_what_carries_another_tag(uploads: Uploads) -> None:
    store = MemoryJobStore()
    refuse = Fault(
        action="status", status=400, code="Nonsense", op=op(uploads, "put-page"), nth=[3]
    )
    with pytest.raises(Exception, match="Nonsense"):
        await run(uploads, refuse, store=store)
    left = await UploadStage().clean_up(job(uploads, store=store, origin="ef" * 16))
    assert "owner tag" in left[0]


async def test_a_missing_container_or_group_is_named(uploads: Uploads) -> None:
    context = job(uploads)
    uploads.sim.vault.state.containers.clear()
    uploads.sim.vault.state.groups.clear()
    with pytest.raises(TargetNotFound, match=r"(?i)container|group"):
        await UploadStage().run(context)


async def test_another_size_of_our_own_object_is_noticed(uploads: Uploads) -> None:
    store = MemoryJobStore()
    refuse = Fault(
        action="status", status=400, code="Nonsense", op=op(uploads, "put-page"), nth=[3]
    )
    with pytest.raises(Exception, match="Nonsense"):
        await run(uploads, refuse, store=store)
    store.data = None
    with (uploads.share / "golden.raw").open("r+b") as file:
        file.truncate(SIZE + 5 * MiB)
    with pytest.raises(SizeDiffers):
        await run(uploads, store=store, attempt=2)


async def test_a_blob_that_somebody_enlarged_is_no_disk(uploads: Uploads, monkeypatch) -> None:
    """The footer would no longer be its last sector."""
    if uploads.kind == "disk":
        return  # the service takes no resize while a disk is uploaded
    seal = PageBlobDisk.seal

    async def enlarged(disk: PageBlobDisk, digest) -> None:
        uploads.sim.blob(CONTAINER, "golden.vhd").resize(PADDED + MiB, 0.0)
        await seal(disk, digest)

    monkeypatch.setattr(PageBlobDisk, "seal", enlarged)
    with pytest.raises(SizeDiffers):
        await run(uploads)


def wrong_write(uploads: Uploads) -> Fault:
    return Fault(action="flip-stored", op=op(uploads, "put-page"), nth=[2], limit=1)


def tags_of(uploads: Uploads) -> dict[str, str]:
    sim = uploads.sim
    if uploads.kind == "page-blob":
        return dict(sim.blob(CONTAINER, "golden.vhd").record.metadata)
    return dict(next(iter(sim.vault.state.disks.values())).tags)


async def test_a_disk_that_failed_verification_never_looks_finished(uploads: Uploads) -> None:
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await run(uploads, wrong_write(uploads), store=store)
    assert "unverified" in tags_of(uploads).values()
    assert [intent.name for intent in store.intents()] == [
        "golden.vhd" if uploads.kind == "page-blob" else "golden"
    ]  # the result names it as left behind
    if uploads.kind == "page-blob":  # no VHD: no disk can be made of it by mistake
        file = uploads.sim.blob(CONTAINER, "golden.vhd").file
        assert bytes(file.read(PADDED, 512)) == bytes(512)


async def test_cleaning_up_deletes_a_wrong_disk(uploads: Uploads) -> None:
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await run(uploads, wrong_write(uploads), store=store)
    assert await UploadStage().clean_up(job(uploads, store=store)) == []
    assert not uploads.sim.vault.state.disks
    assert not uploads.sim.vault.blobs
