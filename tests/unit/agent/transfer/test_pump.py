"""The pump moves only data, once, within its memory; receipts follow acknowledgements; the first error ends it."""

import asyncio
import random
import threading
import time

import pytest

from agent.errors import Cancelled, Permanent, Retryable, Throttled
from agent.retry import Retrier, RetryPolicy
from agent.threads import Pool
from agent.transfer import pump as pump_module
from agent.transfer.flow import At
from agent.transfer.gate import Gate
from agent.transfer.limiter import Limiter
from agent.transfer.pump import Pump
from imaging.digest import DIGEST_BLOCK, DigestBuilder, digest_device
from imaging.errors import DeviceIOError
from imaging.memory import MemoryDevice
from imaging.units import MiB
from tests.support.disk_target import LIMITS, MemoryDisk
from tests.support.job_store import MemoryJobStore

SIZE = 40 * MiB + 512


class CountingDevice(MemoryDevice):
    """Counts the bytes that were read; may fail at an offset."""

    def __init__(self, size, *, fail_at=None):
        super().__init__(size)
        self.bytes_read = 0
        self.fail_at = fail_at

    def read_into(self, offset, buffer):
        if self.fail_at is not None and offset <= self.fail_at < offset + len(buffer):
            raise DeviceIOError("bad sector", offset=offset)
        self.bytes_read += len(buffer)
        super().read_into(offset, buffer)


def source(**options):
    device = CountingDevice(SIZE, **options)
    rng = random.Random(7)
    for offset, length in ((0, 3 * MiB), (9 * MiB, 5 * MiB), (SIZE - 700, 700)):
        device.write(offset, rng.randbytes(length))
    device.write(20 * MiB, bytes(4 * MiB))  # data that is zero
    return device


def make_pump(device, disk, *, store=None, progress=None, patience_s=30.0, abort=None):
    policy = RetryPolicy(base_s=0.001, cap_s=0.002, patience_s=patience_s)
    return Pump(
        source=device,
        abort=abort or (lambda: None),
        disk=disk,
        limits=LIMITS,
        digest=DigestBuilder(device.size),
        receipts=store or MemoryJobStore(),
        limiter=Limiter(None, now=time.monotonic),
        retrier=Retrier(policy=policy, now=time.monotonic, random=random.random),
        progress=progress or (lambda stats: None),
    )


async def test_the_copy_is_exact_and_has_the_disks_root():
    device, disk = source(), MemoryDisk(41 * MiB)
    pump = make_pump(device, disk)
    await pump.run()
    assert bytes(disk.device._bytes[:SIZE]) == bytes(device._bytes)
    assert not any(disk.device._bytes[SIZE:])
    assert pump.digest.root() == digest_device(device).root


async def test_zero_and_unallocated_blocks_are_not_sent_and_holes_not_read():
    device, disk = source(), MemoryDisk(41 * MiB)
    stats = await make_pump(device, disk).run()
    assert device.bytes_read == stats.done
    assert device.bytes_read < 13 * MiB
    assert stats.sent == sum(length for _, length, _ in disk.puts)
    assert stats.sent <= 8 * MiB + 2 * DIGEST_BLOCK
    assert not any(20 * MiB <= offset < 24 * MiB for offset, _, _ in disk.puts)


async def test_failing_puts_are_sent_again_and_counted():
    script = (Throttled("busy"), ("after", Retryable("answer lost")), None, Retryable("reset"))
    device, disk = source(), MemoryDisk(41 * MiB, script=script)
    pump = make_pump(device, disk)
    stats = await pump.run()
    assert stats.retries == 3
    assert bytes(disk.device._bytes[:SIZE]) == bytes(device._bytes)


async def test_no_receipt_without_acknowledgement():
    device, store = source(), MemoryJobStore()
    disk = MemoryDisk(41 * MiB, script=(None, Permanent("no")))
    with pytest.raises(Permanent, match="no"):
        await make_pump(device, disk, store=store).run()
    put = {offset // LIMITS.chunk * LIMITS.chunk for offset, _, _ in disk.puts}
    sent = {o for o in store.receipts if o in (0, 8 * MiB, 12 * MiB, 40 * MiB)}
    assert sent <= put


async def test_a_resumed_copy_reads_and_sends_only_what_has_no_receipt():
    device, store, disk = source(), MemoryJobStore(), MemoryDisk(41 * MiB)
    first = make_pump(device, disk, store=store)
    await first.run()
    for offset in (8 * MiB, 40 * MiB):
        del store.receipts[offset]
    device.bytes_read, disk.puts = 0, []
    again = make_pump(device, disk, store=store)
    stats = await again.run()
    assert {offset for offset, _, _ in disk.puts} == {9 * MiB, 40 * MiB}
    assert device.bytes_read < 4 * MiB
    assert stats.done == first.stats.done
    assert again.digest.root() == first.digest.root()


async def test_receipts_of_another_grid_are_not_believed():
    device, store = source(), MemoryJobStore()
    store.add(0, 1 * MiB, b"\0" * 64)
    pump = make_pump(device, MemoryDisk(41 * MiB), store=store)
    await pump.run()
    assert pump.digest.root() == digest_device(device).root


async def test_an_error_of_the_source_is_the_error_of_the_copy():
    device = source(fail_at=10 * MiB)
    with pytest.raises(DeviceIOError, match="bad sector"):
        await make_pump(device, MemoryDisk(41 * MiB)).run()


async def test_giving_up_on_one_put_ends_the_copy_by_name():
    disk = MemoryDisk(41 * MiB, script=tuple(Retryable("down") for _ in range(1000)))
    with pytest.raises(Exception, match="down") as caught:
        await make_pump(source(), disk, patience_s=0.0).run()
    assert caught.value.code == "transfer.stalled"


async def test_no_more_puts_are_in_flight_than_the_target_takes():
    disk = MemoryDisk(41 * MiB)
    await make_pump(source(), disk).run()
    assert 1 <= disk.inflight_most <= LIMITS.inflight_max


def with_one_chunk():
    device = CountingDevice(4 * MiB)
    device.write(0, random.Random(7).randbytes(MiB))
    return device


@pytest.mark.parametrize(
    ("script", "start", "limit"),
    [((), 1, 2), ((Retryable("reset"),), 4, 4), ((Throttled("busy"),), 4, 2)],
    ids=["success", "failure", "throttled"],
)
async def test_what_the_service_says_moves_the_gate(script, start, limit):
    pump = make_pump(with_one_chunk(), MemoryDisk(4 * MiB, script=script))
    pump._gate = Gate(start=start, most=4, now=time.monotonic)
    await pump.run()
    assert pump._gate.limit == limit


class CrowdedDisk(MemoryDisk):
    """The first put waits until every worker wants to write, and notes how many were let in."""

    def __init__(self, size):
        super().__init__(size)
        self.workers, self.let_in = [], []

    def put(self, offset, data, checksum, stop):
        with self._lock:
            self.let_in.append(offset)
            first = len(self.let_in) == 1
        while first and any(at is not At.WRITING for at in self.workers):
            stop.sleep(0.01)
        if first:
            stop.sleep(0.01)
            self.let_in_at_first = len(self.let_in)
        super().put(offset, data, checksum, stop)


async def test_a_worker_without_a_slot_does_not_write():
    device, disk = source(), CrowdedDisk(41 * MiB)
    device.write(0, random.Random(7).randbytes(SIZE))
    pump = make_pump(device, disk)
    pump._gate = Gate(start=1, most=4, now=time.monotonic)
    disk.workers = pump._workers
    async with asyncio.timeout(30):
        await pump.run()
    assert disk.let_in_at_first == 1


class EndlessReceipts(MemoryJobStore):
    """Not done with loading for 30 s."""

    loading = ended = False

    def load(self):
        self.loading = True
        until = time.monotonic() + 30
        while time.monotonic() < until:
            yield 0, 1, b"\0" * 32
        self.ended = True


async def test_a_cancel_ends_the_loading_of_receipts():
    store = EndlessReceipts()
    async with asyncio.TaskGroup() as group:
        copy = group.create_task(make_pump(source(), MemoryDisk(41 * MiB), store=store).run())
        while not store.loading:  # noqa: ASYNC110 - by a thread
            await asyncio.sleep(0.01)
        copy.cancel()
    assert copy.cancelled()
    assert not store.ended


def copying_threads():
    return [t for t in threading.enumerate() if t.name.startswith("copy")]


@pytest.mark.parametrize("where", ["put", "read", "limit", "slot", "retry"])
async def test_a_cancelled_copy_ends_its_threads_wherever_they_are(where):
    hold, aborted = threading.Event(), threading.Event()
    script = tuple(Retryable("down", retry_after=600.0) for _ in range(100))
    disk = MemoryDisk(41 * MiB, script=script if where == "retry" else ())
    device = SlowDevice(SIZE, aborted) if where == "read" else source()
    device.write(0, bytes(SIZE // 2))
    if where in ("put", "slot"):
        disk.hold = hold
    pump = make_pump(device, disk, abort=aborted.set)
    pump.limiter.set_rate(1 if where == "limit" else None)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await pump.run()
    assert asyncio.get_running_loop().time() - begun < 60  # not the retry's ten minutes
    assert aborted.is_set()
    while copying_threads():  # noqa: ASYNC110 - the pool lets its idle threads go
        await asyncio.sleep(0.01)


async def test_an_error_wakes_the_workers_that_wait_for_other_things():
    """The first put fails for good while another one hangs: it must not hang on."""
    disk = HangingDisk(41 * MiB)
    async with asyncio.timeout(30):
        with pytest.raises(Permanent, match="full"):
            await make_pump(source(), disk).run()
    assert disk.ended == ["Cancelled"]


class HangingDisk(MemoryDisk):
    """One put (the first, if nobody chooses) hangs until it is stopped; the others fail once it does."""

    def __init__(self, size, *, hangs=None, ends_with=None):
        super().__init__(size)
        self.ended = []
        self.hangs = hangs or self._is_first
        self.ends_with = ends_with
        self.hanging = threading.Event()

    def _is_first(self):
        with self._lock:
            self.inflight += 1
            return self.inflight == 1

    def put(self, offset, data, checksum, stop):
        if not self.hangs():
            assert self.hanging.wait(30)
            raise Permanent("full")
        self.hanging.set()
        try:
            stop.sleep(30)
        except Cancelled as err:
            self.ended.append("Cancelled")
            raise (self.ends_with or err) from None


@pytest.mark.parametrize("number", [0, LIMITS.inflight_max - 1], ids=["first", "last"])
async def test_the_first_error_is_told_not_what_the_stop_made_of_another_worker(
    monkeypatch, number
):
    here, work = threading.local(), Pump._work

    def numbered(pump, number):
        here.number = number
        work(pump, number)

    monkeypatch.setattr(Pump, "_work", numbered)
    device = source()
    device.write(0, random.Random(7).randbytes(SIZE))
    disk = HangingDisk(
        41 * MiB, hangs=lambda: here.number == number, ends_with=Permanent("cut off")
    )
    pump = make_pump(device, disk)
    pump._gate = Gate(start=4, most=4, now=time.monotonic)  # a slot for every worker
    async with asyncio.timeout(30):
        with pytest.raises(Permanent, match="full"):
            await pump.run()


async def test_a_worker_that_cannot_be_started_ends_those_that_were(monkeypatch):
    disk = MemoryDisk(41 * MiB)
    disk.hold = threading.Event()

    class NoMoreThreads(Pool):
        def __init__(self, name, workers):
            super().__init__(name, workers)
            submit, self.left = self.executor.submit, 3
            self.executor.submit = lambda *args: self.start(submit, *args)

        def start(self, submit, *args):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("can't start new thread")
            return submit(*args)

    monkeypatch.setattr(pump_module, "Pool", NoMoreThreads)
    with pytest.raises(RuntimeError, match="can't start"):
        await make_pump(source(), disk).run()
    assert disk.inflight == 0
    while copying_threads():  # noqa: ASYNC110 - the pool lets its idle threads go
        await asyncio.sleep(0.01)


async def test_what_was_acknowledged_before_an_error_has_its_receipt():
    store = MemoryJobStore()
    disk = MemoryDisk(41 * MiB, script=(None, None, None, Permanent("no")))
    with pytest.raises(Permanent):
        await make_pump(source(), disk, store=store).run()
    whole = {offset // LIMITS.chunk * LIMITS.chunk for offset, _, _ in disk.puts}
    assert {o for o in store.receipts if o != 20 * MiB} == whole


class FinishingDisk(MemoryDisk):
    """The put of the first chunk fails once two others wait; those are acknowledged although the work was stopped."""

    def __init__(self, size):
        super().__init__(size)
        self.waiting = threading.Semaphore(0)

    def put(self, offset, data, checksum, stop):
        if offset == 0:
            for _ in range(2):
                assert self.waiting.acquire(timeout=30)
            raise Permanent("full")
        self.waiting.release()
        assert stop.wait(30)
        super().put(offset, data, checksum, stop)


async def test_what_is_acknowledged_after_the_stop_has_its_receipt_and_nothing_is_begun():
    store, disk, device = MemoryJobStore(), FinishingDisk(41 * MiB), source()
    device.write(0, random.Random(7).randbytes(SIZE))
    pump = make_pump(device, disk, store=store)
    pump._gate = Gate(start=4, most=4, now=time.monotonic)  # a slot for every worker
    with pytest.raises(Permanent, match="full"):
        await pump.run()
    assert 2 <= len(disk.puts) < LIMITS.inflight_max  # one of each worker but the first
    assert set(store.receipts) == {offset for offset, _, _ in disk.puts}
    assert pump.stats.puts == len(disk.puts)


async def test_no_more_workers_read_at_a_time_than_help():
    device, reading = CountingDevice(SIZE), threading.Semaphore(pump_module.READERS)
    device.write(0, random.Random(7).randbytes(SIZE))
    read_into, too_many = device.read_into, []

    def counted(offset, buffer):
        if not reading.acquire(blocking=False):
            too_many.append(offset)
            return
        time.sleep(0)  # gives the others the turn
        read_into(offset, buffer)
        reading.release()

    device.read_into = counted
    await make_pump(device, MemoryDisk(41 * MiB)).run()
    assert too_many == []


async def test_progress_ends_at_all_of_the_data():
    seen = []
    device = source()
    await make_pump(device, MemoryDisk(41 * MiB), progress=lambda s: seen.append(s.done)).run()
    assert seen == sorted(seen)
    assert seen[-1] == 3 * MiB + 5 * MiB + 4 * MiB + seen[-1] % MiB


class SlowDevice(CountingDevice):
    """Reads when it may."""

    def __init__(self, size, gate):
        super().__init__(size)
        self.gate = gate

    def read_into(self, offset, buffer):
        assert self.gate.wait(30)
        super().read_into(offset, buffer)


class SlowDisk(MemoryDisk):
    """Writes when it may."""

    def __init__(self, size, gate):
        super().__init__(size)
        self.gate = gate

    def put(self, offset, data, checksum, stop):
        assert self.gate.wait(30)
        super().put(offset, data, checksum, stop)


@pytest.mark.parametrize("side", ["source", "target", "limit"])
async def test_a_stalled_copy_names_the_side_that_it_waits_for(monkeypatch, side):
    monkeypatch.setattr(pump_module, "TICK_S", 0.01)
    monkeypatch.setattr(pump_module, "STALL_S", 0.01)
    gate, told = threading.Event(), []

    def progress(stats):
        told.append(stats.slow)
        if stats.slow == side:  # nothing goes on before it was named
            gate.set()
            pump.limiter.set_rate(None)

    device = SlowDevice(SIZE, gate) if side == "source" else CountingDevice(SIZE)
    for offset in (0, 9 * MiB, 18 * MiB):
        device.write(offset, random.Random(7).randbytes(3 * MiB))
    disk = SlowDisk(41 * MiB, gate) if side == "target" else MemoryDisk(41 * MiB)
    pump = make_pump(device, disk, progress=progress)
    pump.limiter.set_rate(1 if side == "limit" else None)
    async with asyncio.timeout(30):  # a side that is never named would be waited for without end
        await pump.run()
    assert None in told[told.index(side) : -1]  # as soon as a chunk gets done
    assert told[-1] is None  # also if the side was named again after the last chunk
    assert pump.stats.slow is None
