"""Read throughput of the SMB share against smbclient, in one run on one server; prints ratios, asserts no speed.

Of our own runs the start of the interpreter and the connect are left out; smbclient's are some 20 ms.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.units import GiB, MiB
from tests.support.samba import Rig, samba_rig

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

SIZE = 1 * GiB
RUNS = 3

READER = """
import sys, threading, time
from agent.secrets import Secret
from agent.shares.smb.malloc import tune_malloc
from agent.shares.smb.policy import Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare

port, user, password, encryption, threads = sys.argv[1:]
tune_malloc()
share = SmbShare(
    SmbShareRef("127.0.0.1", "plain", int(port)),
    SmbCredential(user, Secret(password)),
    policy=SmbPolicy(encryption=Encryption(encryption)),
)
file = share.open_read("image.raw")
piece, step = 4 << 20, int(threads)

def read(first):
    buffer = memoryview(bytearray(piece))
    for offset in range(first * piece, file.size, step * piece):
        file.read_into(offset, buffer)

wall, cpu = time.perf_counter(), time.process_time()
workers = [threading.Thread(target=read, args=(n,)) for n in range(step)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(time.perf_counter() - wall, time.process_time() - cpu)
share.close()
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A dense file, in memory where the machine has a place for that."""
    with samba_rig(place=Path("/dev/shm") if Path("/dev/shm").is_dir() else None) as running:
        block = os.urandom(8 * MiB)
        with running.write("image.raw", b"").open("wb") as file:
            for _ in range(SIZE // len(block)):
                file.write(block)
        yield running


def _measure(command: list[str]) -> tuple[float, float]:
    """Return (MiB/s, CPU seconds per GiB) of one child: its own word for the reading alone, if it gives one."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if command[0] == sys.executable:
        wall, cpu = map(float, done.stdout.splitlines()[-1].split())
    return SIZE / MiB / wall, cpu / (SIZE / GiB)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("require", "encrypt"), ("off", "sign")], ids=["encrypted", "signed"]
)
def test_sequential_read_against_smbclient(
    rig: Rig, ours: str, theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    smbclient = shutil.which("smbclient")
    if smbclient is None:
        pytest.fail(
            "smbclient is not installed: without its peer this measures nothing (make setup)"
        )
    user, port = rig.server.user, str(rig.server.port)
    reader = [sys.executable, "-c", READER, port, user.name, user.password, ours]
    contenders = {
        "smbclient": [
            smbclient, "//127.0.0.1/plain", "-p", port, "-U", f"{user.name}%{user.password}",
            f"--client-protection={theirs}", "-c", "get image.raw /dev/null",
        ],
        "1 thread": [*reader, "1"],
        "4 threads": [*reader, "4"],
    }  # fmt: skip
    figures = {
        name: [_measure(command) for _ in range(RUNS)] for name, command in contenders.items()
    }
    lines = [f"SMB read, {theirs}, 1 GiB, median of {RUNS}"]
    base = statistics.median(rate for rate, _ in figures["smbclient"])
    for name, runs in figures.items():
        rate = statistics.median(rate for rate, _ in runs)
        cpu = statistics.median(cpu for _, cpu in runs)
        lines.append(f"  {name:10} {rate:6.0f} MiB/s  {rate / base:4.2f}x  {cpu:4.2f} CPU-s/GiB")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
