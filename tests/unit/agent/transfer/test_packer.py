"""The packer: an archive in parts that may be sent at once, gone on with behind an unbroken row, read back whole."""

import io
import random
import tarfile
import threading
import time

import google_crc32c
import pytest

from agent.errors import Cancelled, Permanent, Retryable
from agent.retry import Retrier, RetryPolicy
from agent.targets.base import TargetLimits
from agent.transfer import packer as packing
from agent.transfer.errors import VerifyMismatch
from agent.transfer.limiter import Limiter
from agent.transfer.packer import Packer
from agent.transfer.parts import PackedPart, Row
from agent.transfer.unpack import ArchiveVerifier
from imaging.convert.archives import TarGzArchive, VmdkArchive
from imaging.device import read_bytes
from imaging.digest import DigestBuilder
from imaging.formats import open_image
from imaging.memory import MemoryDevice
from imaging.units import GiB, MiB
from tests.support.job_store import MemoryJobStore

SIZE = 60 * MiB + 512
LIMITS = TargetLimits(
    chunk=4 * MiB, alignment=1, granularity=GiB, min_size=GiB, max_size=GiB, inflight_start=3,
    inflight_max=3,
)  # fmt: skip


ONE = TarGzArchive(one_member=True)


class MemoryArchive:
    """Keeps parts; `refuse` are numbers that fail for good, `flaky` those that fail once."""

    resumed = False
    held = None

    def __init__(self, *, form=ONE, refuse=(), flaky=()) -> None:
        self.format = form
        self.refuse, self.flaky = set(refuse), set(flaky)
        self.parts: dict[int, bytes] = {}
        self.sent: list[int] = []
        self.slow: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    def part_size(self, number: int) -> int:
        return 3 * MiB

    def put_part(self, number: int, offset: int, data: bytes, stop) -> str:
        if number in self.slow:
            self.slow[number].wait(10)
        with self._lock:
            if number in self.refuse:
                raise Permanent("refused")
            if number in self.flaky:
                self.flaky.discard(number)
                raise Retryable("once")
            self.parts[number] = data
            self.sent.append(number)
        return f"tag-{number}"

    def whole(self) -> bytes:
        return b"".join(self.parts[number] for number in sorted(self.parts))

    async def read(self, offset: int, length: int) -> bytes:
        return self.whole()[offset : offset + length]

    async def seal(self, parts, crc32c) -> None: ...
    async def reject(self) -> None: ...
    async def finish(self): ...
    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def disk() -> MemoryDevice:
    rng = random.Random(8)
    device = MemoryDevice(SIZE)
    for offset, length in ((0, 9 * MiB), (20 * MiB, 25 * MiB), (SIZE - 512, 512)):
        device.write(offset, rng.randbytes(length))
    return device


def packer(disk, archive, store, digest, progress=None) -> Packer:
    return Packer(
        source=disk,
        abort=lambda: None,
        disk=archive,
        limits=LIMITS,
        padded_size=GiB,
        digest=digest,
        receipts=store,
        limiter=Limiter(None, now=time.monotonic),
        retrier=Retrier(
            policy=RetryPolicy(base_s=0.001, cap_s=0.002), now=time.monotonic, random=random.random
        ),
        progress=progress or (lambda stats: None),
    )


async def verified(disk, archive, row, digest) -> int:
    verifier = ArchiveVerifier(
        disk=archive,
        row=row,
        check=archive.format.check(GiB, lambda: disk.extents(0, disk.size), row.states(), digest),
        expected=digest,
        root=digest.root(),
        retrier=Retrier(policy=RetryPolicy(), now=time.monotonic, random=random.random),
        progress=lambda done: None,
    )
    return (await verifier.full()).blocks_read


def unpacked(data: bytes) -> bytes:
    """Return the disk of a tar.gz, by Python's tarfile, or of a VMDK, by the image reader."""
    if data.startswith(b"KDMV"):
        file = MemoryDevice(len(data))
        file.write(0, data)
        return read_bytes(open_image(file), 0, SIZE)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return archive.extractfile(archive.next()).read(SIZE)


FORMS = {
    "one": ONE,
    "many": TarGzArchive(one_member=False),
    "vmdk": VmdkArchive(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_the_archive_is_the_disk_and_every_part_is_large_enough(disk, form) -> None:
    archive, digest, store = MemoryArchive(form=form), DigestBuilder(SIZE), MemoryJobStore()
    job = packer(disk, archive, store, digest)
    stats = await job.run()
    assert unpacked(archive.whole()) == read_bytes(disk, 0, SIZE)
    assert all(
        len(part) >= 3 * MiB
        for number, part in archive.parts.items()
        if number < len(archive.parts)
    )
    assert stats.sent == len(archive.whole())
    assert job.row.crc32c() == google_crc32c.value(archive.whole())
    assert await verified(disk, archive, job.row, digest) == digest.count_data()
    assert stats.done == 34 * MiB + 512


async def in_one_go(disk, form, _made={}) -> bytes:  # noqa: B006 - made once a form
    if form not in _made:
        archive = MemoryArchive(form=form)
        await packer(disk, archive, MemoryJobStore(), DigestBuilder(SIZE)).run()
        _made[form] = archive.whole()
    return _made[form]


@pytest.mark.parametrize(
    ("form", "broken"), [("one", 1), ("one", 2), ("one", 5), ("one", 9), ("vmdk", 1), ("vmdk", 2)]
)
async def test_a_later_attempt_goes_on_behind_the_unbroken_row(disk, form, broken) -> None:
    store, form = MemoryJobStore(), FORMS[form]
    first = MemoryArchive(form=form, refuse=[broken])
    with pytest.raises(Permanent):
        await packer(disk, first, store, DigestBuilder(SIZE)).run()
    row = 0
    for receipt in store.load():
        part, _ = PackedPart.read(*receipt)
        row += part.number == row + 1
    assert row <= broken - 1
    second, digest = MemoryArchive(form=form), DigestBuilder(SIZE)
    second.parts = dict(first.parts)
    job = packer(disk, second, store, digest)
    stats = await job.run()
    assert unpacked(second.whole()) == read_bytes(disk, 0, SIZE)
    assert second.whole() == await in_one_go(disk, form)
    assert min(second.sent) == row + 1  # nothing of the row is sent again, everything behind it is
    assert stats.skipped == 0 or row
    assert await verified(disk, second, job.row, digest) == digest.count_data()
    assert digest.root() == job.digest.root()


async def test_a_finished_archive_is_not_read_or_sent_again(disk) -> None:
    store, archive = MemoryJobStore(), MemoryArchive()
    await packer(disk, archive, store, DigestBuilder(SIZE)).run()
    archive.sent.clear()
    digest = DigestBuilder(SIZE)
    job = packer(disk, archive, store, digest)
    stats = await job.run()
    assert archive.sent == []
    assert stats.skipped == stats.done == 34 * MiB + 512
    digest.root()  # complete from receipts alone


async def test_a_passing_failure_is_tried_again_and_counted(disk) -> None:
    archive = MemoryArchive(flaky=[2, 4])
    stats = await packer(disk, archive, MemoryJobStore(), DigestBuilder(SIZE)).run()
    assert stats.retries == 2
    assert unpacked(archive.whole()) == read_bytes(disk, 0, SIZE)


async def test_a_slow_service_bounds_what_is_pending(disk, monkeypatch) -> None:
    monkeypatch.setattr(packing, "PENDING_MOST", most := 7 * MiB)  # three parts do not fit
    archive = MemoryArchive()
    archive.slow = {number: threading.Event() for number in range(1, 99)}
    pending = []

    def progress(stats) -> None:
        pending.append(job._pending)
        if stats.slow == "target":
            for gate in archive.slow.values():
                gate.set()

    job = packer(disk, archive, MemoryJobStore(), DigestBuilder(SIZE), progress)
    await job.run()
    assert 3 * MiB < max(pending) <= most
    assert unpacked(archive.whole()) == read_bytes(disk, 0, SIZE)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_missing_or_swapped_part_is_a_mismatch(disk, form) -> None:
    archive, digest = MemoryArchive(form=form), DigestBuilder(SIZE)
    job = packer(disk, archive, MemoryJobStore(), digest)
    await job.run()
    short = Row({n: part for n, part in job.row.parts.items() if n != 2})
    with pytest.raises(VerifyMismatch):
        await verified(disk, archive, short, digest)
    archive.parts[1], archive.parts[2] = archive.parts[2], archive.parts[1]
    with pytest.raises(VerifyMismatch):
        await verified(disk, archive, job.row, digest)


def part(
    number: int, start: int, *, end: int = 0, offset: int = 0, last: bool = False
) -> PackedPart:
    state = (offset + 5, 1, 2)
    return PackedPart(number, start, end or start + 2, offset, 5, 7, "t", state, last)


def test_a_row_goes_on_only_with_its_very_next_part() -> None:
    row = Row()
    assert not row.continues(part(2, 0))
    assert not row.continues(part(1, 2))
    assert row.continues(part(1, 0))
    row.add(part(1, 0))
    assert row.continues(part(2, 2, offset=5))
    for wrong in (part(3, 2, offset=5), part(2, 4, offset=5), part(2, 2, offset=6)):
        assert not row.continues(wrong)
    row.add(part(2, 2, offset=5, last=True))
    assert row.is_complete
    assert not row.continues(part(3, 4, offset=10))


@pytest.mark.parametrize("receipt", [b"", b"\x00" * 32, b"\xc0", b"\x93\x01\x02\x03"])
def test_what_is_no_parts_receipt_is_none(receipt: bytes) -> None:
    assert PackedPart.read(0, 2, receipt)[0] is None


async def test_a_source_that_is_stopped_ends_every_thread(disk) -> None:
    archive = MemoryArchive()
    job = packer(disk, archive, MemoryJobStore(), DigestBuilder(SIZE))
    job._stop.set()
    with pytest.raises(Cancelled):
        await job.run()
    assert archive.sent == []
