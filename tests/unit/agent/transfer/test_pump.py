"""The pump moves only data, once, within its memory; receipts follow acknowledgements; the first error ends it."""

import asyncio
import random
import threading
import time

import pytest

from agent.errors import Permanent, Retryable, Throttled
from agent.transfer import pump as pump_module
from agent.transfer.gate import Gate
from agent.whereabouts import At
from imaging.digest import DIGEST_BLOCK, digest_device
from imaging.errors import DeviceIOError
from imaging.units import MiB
from tests.support.copies import SIZE, CountingDevice, make_pump, source
from tests.support.disk_target import LIMITS, MemoryDisk
from tests.support.job_store import MemoryJobStore


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
        while first and any(place.at not in {At.WRITING, At.SLOT} for place in self.workers):
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
