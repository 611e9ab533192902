"""The upload stage on local folders: exact, resumable, cancellable, and never fooled by a changed source or object."""

import json
import random
import resource
import threading
from pathlib import Path

import pytest

from agent.errors import Cancelled
from agent.stages.source import Source
from agent.stages.upload import UploadStage
from agent.targets.errors import (
    DiskLost,
    NotOurs,
    SizeDiffers,
    SizeUnsupported,
    TargetExists,
    TargetRefused,
)
from agent.targets.local import LocalDisk
from agent.transfer.errors import SourceChanged, VerifyMismatch
from imaging.digest import DigestBuilder, digest_device
from imaging.errors import ParentNeeded
from imaging.filedev import FileDevice
from imaging.formats import open_image
from imaging.units import KiB, MiB
from protocol.ops import LocalShare, LocalTarget, UploadArgs
from tests.support.chains import Writes, model, vhdx_chain
from tests.support.disks import pattern, root_of
from tests.support.job_store import MemoryJobStore
from tests.support.stage_jobs import Seen, config_for, make_job

SIZE = 9 * MiB + 512


@pytest.fixture
def folders(tmp_path):
    share, cloud = tmp_path / "share", tmp_path / "cloud"
    share.mkdir()
    cloud.mkdir()
    write_image(share / "a.raw", seed=1)
    return share, cloud


def write_image(path: Path, *, seed: int, size: int = SIZE):
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset in (0, 5 * MiB, size - 512):
            file.seek(offset)
            file.write(rng.randbytes(512 if offset else 700_000))


def job(
    folders,
    *,
    path="a.raw",
    disk="golden",
    if_exists="fail",
    verify="full",
    format="raw",
    **options,
):
    args = UploadArgs(
        source=LocalShare(name="disks"),
        path=path,
        target=LocalTarget(name="cloud", disk=disk),
        format=format,
        if_exists=if_exists,
        verify=verify,
    )
    return make_job(args, config_for(share=folders[0], target=folders[1]), **options)


async def test_the_disk_and_the_root_are_the_sources(folders):
    outcome = await UploadStage().run(job(folders))
    share, cloud = folders
    assert (cloud / "golden.raw").read_bytes() == (share / "a.raw").read_bytes()
    assert outcome.root == digest_device(open_image(FileDevice(share / "a.raw"), format="raw")).root
    assert outcome.outputs[0].value["virtual_size"] == SIZE
    assert outcome.report["verified"]["root"] == outcome.root


async def test_a_finished_disk_carries_tags_and_no_part_is_left(folders):
    await UploadStage().run(job(folders))
    names = sorted(p.name for p in folders[1].iterdir())
    assert names == ["golden.json", "golden.raw"]
    assert json.loads((folders[1] / "golden.json").read_text())["final"] is True


@pytest.mark.parametrize("verify", ["full", "sample"])
async def test_progress_of_reading_back_counts_what_is_there(folders, verify):
    zeros = bytes(8 * MiB)  # written, so no hole: read from the source, never sent
    (folders[0] / "a.raw").write_bytes(random.Random(1).randbytes(512 * KiB) + zeros)
    seen = Seen()
    await UploadStage().run(job(folders, verify=verify, seen=seen))
    last = [(done, total) for step, done, total in seen.progress if step == "verify"][-1]
    assert last == (512 * KiB, 512 * KiB)


async def test_not_reading_back_is_said(folders):
    seen = Seen()
    outcome = await UploadStage().run(job(folders, verify="none", seen=seen))
    assert outcome.report["verified"] is None
    assert seen.warnings[0][0] == "upload.not-verified"


class Unproven(MemoryJobStore):
    """Stops right before what is sent and verified counts as proven."""

    async def checkpoint(self, data):
        if self.cancelled and "proven" in data:
            raise Cancelled("stopped")
        await super().checkpoint(data)


async def test_a_second_attempt_sends_only_what_has_no_receipt(folders):
    store = Unproven(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    del store.receipts[4 * MiB]
    store.cancelled = False
    outcome = await UploadStage().run(job(folders, store=store, attempt=2))
    assert outcome.report["transfer"]["puts"] == 1
    assert (folders[1] / "golden.raw").read_bytes() == (folders[0] / "a.raw").read_bytes()


async def test_receipts_do_not_outlive_the_object_that_they_were_for(folders):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    for path in folders[1].iterdir():
        path.unlink()
    store.cancelled = False
    await UploadStage().run(job(folders, store=store, attempt=2))
    assert (folders[1] / "golden.raw").read_bytes() == (folders[0] / "a.raw").read_bytes()


async def test_a_source_that_changed_between_attempts_is_refused_before_anything_is_written(
    folders,
):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    part = (folders[1] / "golden.part").read_bytes()
    write_image(folders[0] / "a.raw", seed=2)
    store.cancelled = False
    with pytest.raises(SourceChanged, match="write_time_ns"):
        await UploadStage().run(job(folders, store=store, attempt=2))
    assert (folders[1] / "golden.part").read_bytes() == part


async def test_an_object_exchanged_under_us_is_noticed(folders):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    path = folders[1] / "golden.part.json"
    path.write_text(path.read_text().replace('"id": "', '"id": "other'))
    with pytest.raises(DiskLost, match="not the disk that this job created"):
        await UploadStage().run(job(folders, store=store, attempt=2))


async def test_a_part_of_another_size_is_noticed(folders):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    path = folders[1] / "golden.part.json"
    path.write_text(path.read_text().replace(str(SIZE), str(SIZE - 512)))
    with pytest.raises(SizeDiffers):
        await UploadStage().run(job(folders, store=store, attempt=2))


@pytest.mark.parametrize("size", [SIZE - 512, SIZE + MiB], ids=["shorter", "longer"])
async def test_a_part_that_somebody_resized_never_becomes_a_disk(folders, size, monkeypatch):
    seal = LocalDisk.seal

    async def resized(disk, digest):
        with (folders[1] / "golden.part").open("r+b") as file:
            file.truncate(size)
        await seal(disk, digest)

    monkeypatch.setattr(LocalDisk, "seal", resized)
    with pytest.raises(SizeDiffers):
        await UploadStage().run(job(folders))
    assert not (folders[1] / "golden.raw").exists()


async def test_a_file_system_that_takes_no_file_of_that_size_is_named(folders):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, hard))
    try:
        with pytest.raises(SizeUnsupported, match=f"{SIZE} bytes: File too large"):
            await UploadStage().run(job(folders))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_the_root_is_computed_once_and_off_the_event_loop(folders, monkeypatch):
    threads, plain = [], DigestBuilder.root

    def root(builder):
        threads.append(threading.current_thread())
        return plain(builder)

    monkeypatch.setattr(DigestBuilder, "root", root)
    await UploadStage().run(job(folders))
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_reading_back_asks_only_for_what_the_file_holds(folders):
    outcome = await UploadStage().run(job(folders))
    # 700,000 bytes are two digest blocks; then one in the middle, and the sector at the end
    assert outcome.report["verified"]["bytes_read"] <= 4 * 512 * KiB


async def test_existing_disks_are_refused_versioned_or_replaced(folders):
    await UploadStage().run(job(folders))
    with pytest.raises(TargetExists):
        await UploadStage().run(job(folders, origin="0e" * 16))
    write_image(folders[0] / "b.raw", seed=9)
    new = await UploadStage().run(
        job(folders, path="b.raw", if_exists="new-version", origin="0d" * 16)
    )
    assert new.outputs[0].value["name"] == "golden-v2"
    await UploadStage().run(job(folders, path="b.raw", if_exists="replace", origin="0c" * 16))
    assert (folders[1] / "golden.raw").read_bytes() == (folders[0] / "b.raw").read_bytes()


async def test_a_replaced_disk_stays_until_the_new_one_was_verified(folders):
    await UploadStage().run(job(folders))
    old = (folders[1] / "golden.raw").read_bytes()
    write_image(folders[0] / "b.raw", seed=9)
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(
            job(folders, path="b.raw", if_exists="replace", origin="0c" * 16, store=store)
        )
    assert (folders[1] / "golden.raw").read_bytes() == old


async def test_a_foreign_disk_is_never_touched(folders):
    (folders[1] / "golden.raw").write_bytes(b"somebody else's")
    with pytest.raises(NotOurs):
        await UploadStage().run(job(folders, if_exists="replace"))
    assert (folders[1] / "golden.raw").read_bytes() == b"somebody else's"


async def test_cleaning_up_deletes_what_the_line_created_and_only_that(folders):
    await UploadStage().run(job(folders, disk="other", origin="0e" * 16))
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    context = job(folders, store=store)
    assert await UploadStage().clean_up(context) == []
    assert await UploadStage().clean_up(context) == []
    assert sorted(p.name for p in folders[1].iterdir()) == ["other.json", "other.raw"]


async def test_cleaning_up_names_what_it_leaves(folders):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(job(folders, store=store))
    path = folders[1] / "golden.part.json"
    tags = json.loads(path.read_text())
    tags["tags"]["imageport-mac"] = "0" * 32
    path.write_text(json.dumps(tags))
    left = await UploadStage().clean_up(job(folders, store=store))
    assert "owner tag" in left[0]
    assert (folders[1] / "golden.part").exists()


def rot(folders, monkeypatch):
    """Flip one byte of the part when it is sealed, once."""
    seal, left = LocalDisk.seal, [1]

    async def rotten(disk, digest):
        await seal(disk, digest)
        if left and left.pop():
            with (folders[1] / "golden.part").open("r+b") as file:
                file.seek(77)
                file.write(b"\x00\x01")

    monkeypatch.setattr(LocalDisk, "seal", rotten)


async def test_a_disk_that_failed_verification_stays_a_part_and_is_named(folders, monkeypatch):
    rot(folders, monkeypatch)
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await UploadStage().run(job(folders, store=store))
    assert sorted(p.name for p in folders[1].iterdir()) == ["golden.part", "golden.part.json"]
    assert [intent.name for intent in store.intents()] == ["golden"]
    assert not store.receipts


async def test_a_retry_after_a_mismatch_sends_everything_anew(folders, monkeypatch):
    rot(folders, monkeypatch)
    store = MemoryJobStore()
    with pytest.raises(VerifyMismatch):
        await UploadStage().run(job(folders, store=store))
    outcome = await UploadStage().run(job(folders, store=store, attempt=2))
    assert outcome.report["transfer"]["skipped"] == 0
    assert (folders[1] / "golden.raw").read_bytes() == (folders[0] / "a.raw").read_bytes()


async def test_a_wrong_disk_that_cannot_be_marked_is_warned_of(folders, monkeypatch):
    rot(folders, monkeypatch)

    async def refuse(disk):
        raise TargetRefused("not now")

    monkeypatch.setattr(LocalDisk, "reject", refuse)
    seen = Seen()
    with pytest.raises(VerifyMismatch):
        await UploadStage().run(job(folders, seen=seen))
    assert ("upload.not-marked", "the wrong disk could not be marked: not now") in seen.warnings


# --- differencing images -------------------------------------------------------------------------

CHAIN: list[tuple[int, Writes]] = [
    (4 * MiB, [(0, pattern(4 * MiB))]),
    (4 * MiB, [(MiB, pattern(4096, 8))]),
    (5 * MiB, [(4 * MiB - 512, pattern(1024, 9))]),
]


def chain_job(folders, **options):
    folder = folders[0] / "store"
    folder.mkdir(exist_ok=True)
    for name, content in vhdx_chain(CHAIN).items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    path = f"store/base.{len(CHAIN) - 1}.avhdx"
    return job(folders, path=path, format="vhdx", **options)


async def test_a_chain_of_differencing_images_becomes_one_disk(folders):
    outcome = await UploadStage().run(chain_job(folders))
    assert (folders[1] / "golden.raw").read_bytes() == model(CHAIN)
    assert outcome.root == root_of(model(CHAIN))


async def test_a_missing_parent_is_named_before_anything_is_written(folders):
    made = chain_job(folders)
    (folders[0] / "store" / "base.1.avhdx").unlink()
    with pytest.raises(ParentNeeded, match=r"base\.1\.avhdx"):
        await UploadStage().run(made)
    assert list(folders[1].iterdir()) == []


async def test_a_parent_that_changed_between_attempts_is_refused(folders):
    store = MemoryJobStore(cancelled=True)
    with pytest.raises(Cancelled):
        await UploadStage().run(chain_job(folders, store=store))
    base = folders[0] / "store" / "base.vhdx"
    base.write_bytes(base.read_bytes())
    store.cancelled = False
    with pytest.raises(SourceChanged, match=r"^base\.vhdx changed"):
        await UploadStage().run(chain_job(folders, store=store, attempt=2))


async def test_a_parent_that_changes_while_the_job_runs_fails_it(folders, monkeypatch):
    base, check = folders[0] / "store" / "base.vhdx", Source.check_unchanged

    async def touched(source):
        base.touch()
        await check(source)

    monkeypatch.setattr(Source, "check_unchanged", touched)
    with pytest.raises(SourceChanged, match=r"^base\.vhdx changed"):
        await UploadStage().run(chain_job(folders))
    assert not (folders[1] / "golden.raw").exists()
