"""Every fault of the target ends in a bit-exact disk or in a named error; never in a short or wrong disk."""

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.retry import RetryPolicy
from agent.stages import plugins
from agent.stages.upload import UploadStage
from agent.targets.azure.page_blob import PageBlobDisk
from agent.targets.errors import (
    AccessForbidden,
    CredentialRefused,
    DiskLost,
    SizeDiffers,
    TargetExists,
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


async def test_only_data_moves_and_the_disk_is_exact(uploads: Uploads) -> None:
    outcome = await run(uploads)
    assert stored(uploads) == expected(uploads)
    assert uploads.sim.stats.bytes_stored < 10 * MiB + 512
    assert outcome.report["verified"]["root"] == outcome.root
    assert outcome.outputs[0].value["service_checksum"] == "crc64"


FAULTS = {
    "503": [Fault(action="status", status=503, code="ServerBusy", probability=0.5, limit=20)],
    "503-retry-after": [Fault(action="status", status=503, retry_after=0, nth=[1, 2])],
    "500": [Fault(action="status", status=500, code="OperationTimedOut", nth=[1, 3])],
    "drop-before-body": [Fault(action="drop-before-body", nth=[1, 4])],
    "drop-after-body": [Fault(action="drop-after-body", nth=[2, 3])],
    "answer-lost": [Fault(action="drop-after-write", nth=[1, 2, 5])],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
async def test_passing_faults_of_writes_end_bit_exact(
    uploads: Uploads, faults: list[Fault]
) -> None:
    for fault in faults:
        fault.op = op(uploads, "put-page")
    outcome = await run(uploads, *faults)
    assert stored(uploads) == expected(uploads)
    assert sum(uploads.sim.stats.faults.values()) >= 2
    assert outcome.report["verified"]["root"] == outcome.root


@pytest.mark.parametrize("action", ["truncate", "drop-after-write"])
async def test_passing_faults_of_reads_end_verified(uploads: Uploads, action: str) -> None:
    outcome = await run(uploads, Fault(action=action, op=op(uploads, "get"), nth=[1, 3]))
    assert outcome.report["verified"]["root"] == outcome.root


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


async def test_a_throttled_service_slows_us_down_and_gets_everything(uploads: Uploads) -> None:
    await run(uploads, throttle=Throttle(requests_per_second=20))
    assert stored(uploads) == expected(uploads)


@pytest.mark.parametrize("action", ["flip-stored", "lose-write"])
async def test_a_service_that_loses_or_changes_bytes_is_found_out(
    uploads: Uploads, action: str
) -> None:
    with pytest.raises(VerifyMismatch, match="digest block"):
        await run(uploads, Fault(action=action, op=op(uploads, "put-page"), nth=[2]))


async def test_an_expired_sas_is_renewed(uploads: Uploads) -> None:
    outcome = await run(uploads, Fault(action="expire-sas", op=op(uploads, "put-page"), nth=[2]))
    assert stored(uploads) == expected(uploads)
    assert outcome.root


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


async def test_a_wrong_credential_is_named_and_creates_nothing(uploads: Uploads) -> None:
    wrong = {
        "page-blob": {"account_key": "d3Jvbmc="},
        "disk": {**uploads.principal(), "client_secret": "wrong"},
    }[uploads.kind]
    with pytest.raises((CredentialRefused, AccessForbidden)) as caught:
        await run(uploads, credential=wrong)
    assert "wrong" not in str(caught.value).replace("wrong user", "")
    assert uploads.sim.stats.bytes_received == 0


async def test_an_existing_disk_is_refused_and_stays_as_it_is(uploads: Uploads) -> None:
    await run(uploads)
    before = stored(uploads)
    with pytest.raises(TargetExists):
        await run(uploads, origin="ab" * 16)
    assert stored(uploads) == before


async def test_a_second_attempt_sends_only_what_was_not_acknowledged(uploads: Uploads) -> None:
    store = MemoryJobStore()
    refuse = Fault(
        action="status", status=400, code="Nonsense", op=op(uploads, "put-page"), nth=[3]
    )
    with pytest.raises(Exception, match="Nonsense"):
        await run(uploads, refuse, store=store)
    sent = uploads.sim.stats.bytes_stored
    assert store.receipts
    await run(uploads, store=store, attempt=2)
    assert stored(uploads) == expected(uploads)
    assert uploads.sim.stats.bytes_stored - sent < sent + 8 * MiB
    receipted = sum(1 for _ in store.load())
    assert receipted >= 3


async def test_a_disk_deleted_under_us_is_named(uploads: Uploads) -> None:
    gone = Fault(
        action="status", status=404, code="BlobNotFound", op=op(uploads, "put-page"), nth=[2]
    )
    with pytest.raises(DiskLost):
        await run(uploads, gone)


async def test_cleaning_up_deletes_the_unfinished_object(uploads: Uploads) -> None:
    store = MemoryJobStore()
    refuse = Fault(
        action="status", status=400, code="Nonsense", op=op(uploads, "put-page"), nth=[3]
    )
    with pytest.raises(Exception, match="Nonsense"):
        await run(uploads, refuse, store=store)
    assert await UploadStage().clean_up(job(uploads, store=store)) == []
    assert store.objects == {}
    await run(uploads, origin="cd" * 16)  # the name is free again


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


async def test_reading_back_asks_only_for_what_the_service_holds(uploads: Uploads) -> None:
    outcome = await run(uploads)
    assert outcome.report["verified"]["bytes_read"] == uploads.sim.stats.bytes_read
    assert uploads.sim.stats.bytes_read == uploads.sim.stats.bytes_stored - 512  # not the footer


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


async def test_a_retry_after_a_mismatch_begins_with_a_new_object(uploads: Uploads) -> None:
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await run(uploads, wrong_write(uploads), store=store)
    outcome = await run(uploads, store=store, attempt=2)
    assert stored(uploads) == expected(uploads)
    assert outcome.report["transfer"]["skipped"] == 0
    assert "final" in tags_of(uploads).values()


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


async def test_a_kill_while_a_wrong_disk_is_rejected_loses_nothing(uploads: Uploads) -> None:
    store = KilledStore()
    with pytest.raises(Killed):
        await run(uploads, wrong_write(uploads), store=store)
    after = MemoryJobStore(store.receipts, store.objects, store.data)
    outcome = await run(uploads, store=after, attempt=2)
    assert stored(uploads) == expected(uploads)
    assert outcome.report["verified"]["root"] == outcome.root


async def test_another_job_may_take_the_place_of_a_wrong_disk(uploads: Uploads) -> None:
    with pytest.raises(VerifyMismatch):
        await run(uploads, wrong_write(uploads))
    with pytest.raises(TargetExists):
        await run(uploads, origin="ab" * 16)
    await run(uploads, origin="cd" * 16, options={"if_exists": "resume"})
    assert stored(uploads) == expected(uploads)


async def test_cleaning_up_deletes_a_wrong_disk(uploads: Uploads) -> None:
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await run(uploads, wrong_write(uploads), store=store)
    assert await UploadStage().clean_up(job(uploads, store=store)) == []
    assert not uploads.sim.vault.state.disks
    assert not uploads.sim.vault.blobs
