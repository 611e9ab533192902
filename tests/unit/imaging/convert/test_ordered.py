"""The ordered copy: units in order, holes unread, every block hashed, the first error, stop and bounded memory."""

import threading

import pytest

from imaging.convert.ordered import WINDOW, Job, copy_ordered, plan
from imaging.digest import DIGEST_BLOCK, DigestBuilder, digest_device
from imaging.errors import DeviceFull, DeviceIOError, Stopped
from imaging.extent import Extent, Kind
from imaging.memory import MemoryDevice
from imaging.units import GiB, KiB, MiB, TiB

BLOCK = 512 * KiB
UNIT = 1 * MiB


class Disk:
    """An OrderedSink that keeps the disk, and checks its contract."""

    unit = UNIT

    def __init__(self, size):
        self.content = bytearray(size)
        self.next = 0
        self.zeros = []
        self.lock = threading.Lock()

    def encode(self, offset, data):
        if data is None:
            self.zeros.append(offset)
            return ()
        assert data.nbytes == min(UNIT, len(self.content) - offset)
        return (bytes(data),)

    def append(self, offset, encoded):
        assert self.lock.acquire(blocking=False), "two at a time"
        assert offset == self.next
        self.next += UNIT
        for part in encoded:
            self.content[offset : offset + len(part)] = part
        self.lock.release()


class Counting(MemoryDevice):
    """Remembers which ranges were read."""

    def __init__(self, content):
        super().__init__(content)
        self.reads = []

    def read_into(self, offset, buffer):
        if len(buffer):
            self.reads.append((offset, len(buffer)))
        super().read_into(offset, buffer)


def filled(size, **kwargs):
    device = Counting(size)
    for at in range(0, size, 3 * MiB):
        device.write(at, bytes([1 + at // MiB % 250]) * min(700 * KiB, size - at))
    return device


@pytest.mark.parametrize("size", [1, 512, BLOCK, BLOCK + 1, UNIT, UNIT + 512, 9 * MiB + 5])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_sink_gets_the_disk_and_the_builder_its_digests(size, threads):
    source = MemoryDevice((b"golden%d" % size) * (size // 6 + 1))
    source = MemoryDevice(bytes(source._bytes[:size]))
    sink, digest = Disk(size), DigestBuilder(size)
    copy_ordered(source, sink, digest=digest, threads=threads)
    assert sink.content == source._bytes
    assert digest.digest() == digest_device(source)


@pytest.mark.parametrize("threads", [1, 3, 40])
def test_holes_are_not_read_and_zeros_are_told(threads):
    source = filled(40 * MiB + 512)
    source.write(32 * MiB + BLOCK, b"half of a unit")
    source.write(34 * MiB + BLOCK, bytes(BLOCK))  # written zeros: read, but nothing
    sink, digest = Disk(source.size), DigestBuilder(source.size)
    copy_ordered(source, sink, digest=digest, threads=threads)
    reads = {at // BLOCK for at, _ in source.reads}
    data = [e for e in source.extents(0, source.size) if e.is_data]
    assert reads == {b for e in data for b in range(e.offset // BLOCK, -(-e.end // BLOCK))}
    assert sum(length for _, length in source.reads) <= len(reads) * BLOCK
    assert {2 * MiB, 34 * MiB} <= set(sink.zeros)
    assert not {3 * MiB, 32 * MiB} & set(sink.zeros)
    assert sink.content == source._bytes
    assert digest.root() == digest_device(source).root


def test_without_a_digest_nothing_else_changes():
    source = filled(10 * MiB)
    sink = Disk(source.size)
    copy_ordered(source, sink, digest=None)
    assert sink.content == source._bytes


def test_a_buffer_keeps_nothing_of_the_unit_before():
    source = MemoryDevice(4 * MiB)
    source.write(0, b"\xff" * UNIT)
    source.write(MiB + BLOCK, b"\1")
    source.write(3 * MiB, b"\xff" * (UNIT - 4096))
    sink, digest = Disk(source.size), DigestBuilder(source.size)
    copy_ordered(source, sink, digest=digest, threads=1)
    assert sink.content == source._bytes
    assert digest.root() == digest_device(source).root


def test_progress_adds_up_and_comes_one_call_at_a_time():
    source, seen, busy = filled(21 * MiB + 7), [], threading.Lock()

    def progress(count):
        assert busy.acquire(blocking=False)
        seen.append(count)
        busy.release()

    copy_ordered(source, Disk(source.size), digest=None, progress=progress, threads=4)
    assert sum(seen) == source.size


def test_stop_ends_the_work():
    source, sink = filled(30 * MiB), Disk(30 * MiB)
    with pytest.raises(Stopped):
        copy_ordered(source, sink, digest=None, stop=lambda: sink.next >= 4 * MiB, threads=2)
    assert sink.next < 30 * MiB


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_the_source_is_raised(threads):
    class Failing(MemoryDevice):
        def read_into(self, offset, buffer):
            if offset >= 2 * MiB:
                raise DeviceIOError("the disk under the test is broken")
            super().read_into(offset, buffer)

    sink = Disk(9 * MiB)
    with pytest.raises(DeviceIOError, match="broken"):
        copy_ordered(Failing(b"x" * (9 * MiB)), sink, digest=None, threads=threads)
    assert sink.next <= 2 * MiB


def test_an_error_of_the_sink_ends_the_work():
    class Full(Disk):
        def append(self, offset, encoded):
            super().append(offset, encoded)
            if offset == 3 * MiB:
                raise DeviceFull("no room")

    source, sink = Counting(b"x" * (99 * MiB)), Full(99 * MiB)
    with pytest.raises(DeviceFull):
        copy_ordered(source, sink, digest=None, threads=4)
    assert sink.next == 4 * MiB
    assert len(source.reads) <= (WINDOW + 4) * UNIT // BLOCK


def test_what_is_ready_is_appended_by_whoever_completes_the_unit_before():
    order, done = [], threading.Semaphore(0)

    class Late(Disk):
        def encode(self, offset, data):
            if offset == 0:
                for _ in range(5):
                    assert done.acquire(timeout=30)
            else:
                done.release()
            return super().encode(offset, data)

        def append(self, offset, encoded):
            order.append(threading.current_thread().name)
            super().append(offset, encoded)

    copy_ordered(MemoryDevice(b"x" * (6 * MiB)), Late(6 * MiB), digest=None, threads=2)
    assert len(order) == 6
    assert len(set(order[:5])) == 1


def test_workers_wait_when_the_oldest_unit_is_slow():
    begun, go = [], threading.Event()

    class Slow(Disk):
        def encode(self, offset, data):
            begun.append(offset)
            if len(begun) == WINDOW:
                go.set()
            if offset == 0:
                assert go.wait(30)  # the others fill the window, and no more
                assert len(begun) <= WINDOW
            return super().encode(offset, data)

    size = 3 * WINDOW * MiB
    sink = Slow(size)
    copy_ordered(MemoryDevice(b"x" * size), sink, digest=None, threads=4)
    assert sink.next == size


def test_plan_of_nothing_is_few_jobs():
    jobs = list(plan([Extent(0, 64 * TiB, Kind.HOLE)], 64 * TiB, 2 * MiB))
    assert len(jobs) == 32768
    assert sum(job.length for job in jobs) == 64 * TiB
    assert not any(job.blocks for job in jobs)


def test_empty_jobs_are_aligned_so_that_digests_of_whole_gib_are_set_at_once():
    extents = [Extent(0, 1, Kind.DATA), Extent(1, 10 * TiB - 1, Kind.HOLE)]
    jobs = list(plan(extents, 10 * TiB, 2 * MiB))
    assert jobs[0] == Job(0, 2 * MiB, (0,))
    assert {job.offset % GiB for job in jobs[2:]} == {0}


def test_plan_reads_whole_digest_blocks_once():
    extents = [
        Extent(0, 4096, Kind.ZERO),
        Extent(4096, 4096, Kind.DATA),
        Extent(8192, 4096, Kind.HOLE),
        Extent(12288, 4096, Kind.DATA),
        Extent(16384, 3 * MiB, Kind.HOLE),
        Extent(3 * MiB + 16384, 2 * BLOCK, Kind.DATA),
    ]
    size = extents[-1].end
    assert list(plan(extents, size, UNIT)) == [
        Job(0, UNIT, (0,)),
        Job(UNIT, 2 * UNIT, ()),
        Job(3 * UNIT, UNIT, (6, 7)),
        Job(4 * UNIT, 16384, (8,)),
    ]
    assert DIGEST_BLOCK == BLOCK
