"""Copying into random sinks: bytes, digest, zeros left out, order of first writes, stop, errors."""

import threading

import pytest

from imaging.convert.copy import copy_random
from imaging.convert.plan import RUN
from imaging.counting import CountingDevice
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.errors import DeviceFull, DeviceIOError, Stopped
from imaging.memory import MemoryDevice
from imaging.units import KiB, MiB
from tests.support.disks import pattern, root_of

pytestmark = pytest.mark.exhaustive


class MemorySink:
    """Keeps what is written; refuses a place twice, zeros, and what crosses a digest block."""

    def __init__(self, size):
        self.content = bytearray(size)
        self.taken = bytearray(size)
        self.writes = []
        self.lock = threading.Lock()

    def write(self, offset, data):
        with self.lock:
            end = offset + len(data)
            assert any(data)
            assert not any(self.taken[offset:end])
            assert offset // DIGEST_BLOCK == (end - 1) // DIGEST_BLOCK
            self.writes.append((offset, len(data)))
            self.taken[offset:end] = b"\1" * len(data)
            self.content[offset:end] = data

    def finish(self):
        raise AssertionError("finishing is the caller's")


class FullSink(MemorySink):
    def write(self, offset, data):
        if offset >= 5 * MiB:
            raise DeviceFull("no room under the test")
        super().write(offset, data)


class BrokenDevice(MemoryDevice):
    def read_into(self, offset, buffer):
        if offset >= 5 * MiB:
            raise DeviceIOError("the disk under the test is broken")
        super().read_into(offset, buffer)


def sparse(size, parts):
    device = MemoryDevice(size)
    for offset, data in parts.items():
        device.write(offset, data)
    return device


def whole(device):
    buffer = bytearray(device.size)
    device.read_into(0, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("size", [1, 512, DIGEST_BLOCK, DIGEST_BLOCK + 1, RUN, 3 * RUN + 12345])
@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_and_digest(size, threads):
    source, sink = MemoryDevice(pattern(size)), MemorySink(size)
    digest = DigestBuilder(size)
    copy_random(source, sink, digest=digest, threads=threads)
    assert sink.content == pattern(size)
    assert digest.root() == root_of(pattern(size))


@pytest.mark.parametrize("threads", [1, 2])
def test_holes_are_not_read_and_zeros_not_written(threads):
    parts = {8 * KiB: b"head", 3 * MiB: bytes(MiB), 5 * MiB + 60 * KiB: pattern(8 * KiB)}
    parts[20 * MiB - 7] = b"tail"
    device = sparse(20 * MiB, parts)
    source, sink, digest = CountingDevice(device), MemorySink(20 * MiB), DigestBuilder(20 * MiB)
    copy_random(source, sink, digest=digest, threads=threads)
    assert sink.content == whole(device)
    assert digest.root() == root_of(whole(device))
    assert source.bytes_read == MiB + 4 * KiB + 8 * KiB + 4 * KiB
    assert sorted(sink.writes) == [
        (8 * KiB, 4 * KiB),
        (5 * MiB + 60 * KiB, 8 * KiB),
        (20 * MiB - 4 * KiB, 4 * KiB),
    ]


def test_zeros_inside_a_block_of_data_are_left_out_by_64_kib():
    content = bytearray(pattern(DIGEST_BLOCK))
    content[100 * KiB : 300 * KiB] = bytes(200 * KiB)
    sink = MemorySink(DIGEST_BLOCK)
    copy_random(MemoryDevice(content), sink, digest=None)
    assert sink.content == content
    assert sink.writes == [(0, 128 * KiB), (256 * KiB, 256 * KiB)]


def test_a_short_last_block_is_hashed_with_zeros_not_with_old_bytes():
    content = b"\xff" * DIGEST_BLOCK + b"\xff" * 100
    digest = DigestBuilder(len(content))
    copy_random(MemoryDevice(content), MemorySink(len(content)), digest=digest, threads=1)
    assert digest.root() == root_of(content)


def test_without_a_digest_nothing_is_hashed(monkeypatch):
    monkeypatch.delattr("imaging.convert.copy.hashlib.sha256")
    sink = MemorySink(3 * MiB)
    copy_random(MemoryDevice(pattern(3 * MiB)), sink, digest=None)
    assert sink.content == pattern(3 * MiB)


def test_the_first_writes_of_all_runs_come_in_order():
    content = bytearray(pattern(40 * RUN))
    for run in range(0, 40, 3):  # whose beginning is zeros, and whose first write comes late
        content[run * RUN : (run + 1) * RUN - 4096] = bytes(RUN - 4096)
    content[7 * RUN : 8 * RUN] = bytes(RUN)
    sink = MemorySink(len(content))
    copy_random(MemoryDevice(content), sink, digest=None, threads=4)
    firsts = list(dict.fromkeys(offset // RUN for offset, _ in sink.writes))
    assert firsts == [run for run in range(40) if run != 7]


def test_progress_adds_up_to_the_size():
    device, seen = sparse(200 * MiB + 7, {9 * MiB: b"x" * (3 * MiB)}), []
    copy_random(device, MemorySink(device.size), digest=None, progress=seen.append)
    assert sum(seen) == 200 * MiB + 7


def test_stop_ends_the_work_by_name():
    sink, answers = MemorySink(16 * MiB), iter([False, False, True])
    with pytest.raises(Stopped, match="stopped before"):
        copy_random(
            MemoryDevice(pattern(16 * MiB)),
            sink,
            digest=None,
            stop=lambda: next(answers),
            threads=1,
        )
    assert sink.taken.count(1) == 2 * RUN


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("device", "sink", "error"),
    [(BrokenDevice, MemorySink, DeviceIOError), (MemoryDevice, FullSink, DeviceFull)],
    ids=["read", "write"],
)
def test_the_first_error_is_the_error(threads, device, sink, error):
    source, digest = device(pattern(40 * MiB)), DigestBuilder(40 * MiB)
    with pytest.raises(error, match="under the test"):
        copy_random(source, sink(40 * MiB), digest=digest, threads=threads)


def test_an_error_of_the_extents_is_the_error():
    class Device(MemoryDevice):
        def extents(self, offset, length):
            yield from list(super().extents(offset, length // 2))
            raise DeviceIOError("no extents under the test")

    with pytest.raises(DeviceIOError, match="no extents"):
        copy_random(Device(pattern(16 * MiB)), MemorySink(16 * MiB), digest=None, threads=3)
