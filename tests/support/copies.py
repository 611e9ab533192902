"""Sources of a copy that count, fail or wait, and the pump over them. For tests of the transfer."""

import random
import time

from agent.retry import Retrier, RetryPolicy
from agent.transfer.limiter import Limiter
from agent.transfer.pump import Pump
from imaging.digest import DigestBuilder
from imaging.errors import DeviceIOError
from imaging.memory import MemoryDevice
from imaging.units import MiB
from tests.support.disk_target import LIMITS
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


class SlowDevice(CountingDevice):
    """Reads when it may."""

    def __init__(self, size, gate):
        super().__init__(size)
        self.gate = gate

    def read_into(self, offset, buffer):
        assert self.gate.wait(30)
        super().read_into(offset, buffer)
