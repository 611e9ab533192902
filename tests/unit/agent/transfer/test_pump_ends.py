"""The pump when it ends early or stands still: nothing hangs, nothing acknowledged is lost, the cause is told."""

import asyncio
import random
import threading
import time

import pytest

from agent.errors import Cancelled, Permanent, Retryable
from agent.threads import Pool
from agent.transfer import crew
from agent.transfer import pump as pump_module
from agent.transfer.gate import Gate
from agent.transfer.pump import Pump
from imaging.units import MiB
from tests.support.copies import SIZE, CountingDevice, SlowDevice, make_pump, source
from tests.support.disk_target import LIMITS, MemoryDisk
from tests.support.job_store import MemoryJobStore


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

    def numbered(pump, place):
        here.number = pump._workers.index(place)
        work(pump, place)

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
    monkeypatch.setattr(crew, "TICK_S", 0.01)
    monkeypatch.setattr(crew, "STALL_S", 0.01)
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
