"""The digest of a device: threads, holes, progress, stop and errors."""

import hashlib
import struct
import threading

import pytest

from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, digest_device
from imaging.digest.device import BlockRun, block_runs
from imaging.errors import DeviceIOError, Stopped
from imaging.extent import Extent, Kind
from imaging.memory import MemoryDevice
from imaging.units import MiB


class CountingDevice(MemoryDevice):
    """Remembers which ranges were read."""

    def __init__(self, content):
        super().__init__(content)
        self.reads = []

    def read_into(self, offset, buffer):
        self.reads.append((offset, len(buffer)))
        super().read_into(offset, buffer)


class FailingDevice(MemoryDevice):
    """Fails every read at or behind 2 MiB."""

    def read_into(self, offset, buffer):
        if offset >= 2 * MiB:
            raise DeviceIOError("the disk under the test is broken")
        super().read_into(offset, buffer)


def reference_root(content):
    root = hashlib.sha256(b"imageport-digest/1\0" + struct.pack(">QQ", len(content), 524288))
    for offset in range(0, len(content), 524288):
        root.update(hashlib.sha256(content[offset : offset + 524288].ljust(524288, b"\0")).digest())
    return "sha256:" + root.hexdigest()


@pytest.mark.parametrize("size", [1, 512, DIGEST_BLOCK, DIGEST_BLOCK + 512, 9 * MiB + 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_root_of_data(size, threads):
    content = (b"imageport%d" % size) * (size // 10 + 1)
    digest = digest_device(MemoryDevice(content[:size]), threads=threads)
    assert digest.root == reference_root(content[:size])
    assert (digest.virtual_size, digest.block_size) == (size, 524288)


def test_a_short_last_block_is_padded_with_zeros_not_with_old_bytes():
    content = b"\xff" * DIGEST_BLOCK + b"\xff" * 100
    assert digest_device(MemoryDevice(content), threads=1).root == reference_root(content)


def test_written_zeros_and_holes_give_one_root():
    assert digest_device(MemoryDevice(bytes(3 * MiB))) == digest_device(MemoryDevice(3 * MiB))


def test_holes_are_not_read():
    device = CountingDevice(8 * MiB)
    device.write(5 * MiB + 4096, b"data")
    digest = digest_device(device, threads=2)
    assert device.reads == [(5 * MiB, DIGEST_BLOCK)]
    assert digest.root == reference_root(
        bytes(5 * MiB + 4096) + b"data".ljust(3 * MiB - 4096, b"\0")
    )


def test_progress_adds_up_to_the_virtual_size():
    device = MemoryDevice(20 * MiB + 7)
    device.write(9 * MiB, b"x" * (3 * MiB))
    seen = []
    digest_device(device, progress=seen.append)
    assert sum(seen) == 20 * MiB + 7


def test_stop_ends_the_work_by_name():
    polled = threading.Event()

    def stop():
        if polled.is_set():
            return True
        polled.set()
        return False

    device = CountingDevice(b"x" * (16 * MiB))
    with pytest.raises(Stopped):
        digest_device(device, stop=stop, threads=1)
    assert len(device.reads) == 8


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failed_read_is_the_error_and_no_digest_comes_out(threads):
    with pytest.raises(DeviceIOError, match="broken"):
        digest_device(FailingDevice(b"x" * (16 * MiB)), threads=threads)


def test_an_error_in_progress_reaches_the_caller():
    def progress(_count):
        raise RuntimeError("display gone")

    with pytest.raises(RuntimeError, match="display gone"):
        digest_device(MemoryDevice(b"x" * MiB), progress=progress)


def test_runs_cover_every_block_once():
    kinds = [Kind.DATA, Kind.HOLE, Kind.ZERO, Kind.DATA, Kind.HOLE]
    extents = [Extent(i * 300_000, 300_000, kind) for i, kind in enumerate(kinds)]
    runs = list(block_runs(iter(extents), 1_500_000))
    assert runs == [BlockRun(0, 1, True), BlockRun(1, 2, True)]
    assert list(block_runs(iter([]), 10 * MiB)) == [BlockRun(0, 20, False)]
    assert list(block_runs(iter([Extent(0, 6 * MiB, Kind.DATA)]), 6 * MiB)) == [
        BlockRun(0, 8, True),
        BlockRun(8, 4, True),
    ]


def test_zero_digest_constant():
    assert hashlib.sha256(bytes(524288)).digest() == ZERO_BLOCK_DIGEST
