"""The malloc settings take effect where glibc is, and may be made again."""

import os
import subprocess
import sys

import pytest

PROBE = """
import resource, sys
from agent.shares.smb.malloc import tune_malloc
if sys.argv[1] == "tuned":
    assert tune_malloc() and tune_malloc()
for _ in range(20):
    bytes(bytearray(1 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    bytes(bytearray(1 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="no glibc")
def test_big_blocks_are_reused_instead_of_mapped_anew() -> None:
    def faults(mode: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("tuned") * 10 < faults("as it is")


THREADS_PROBE = """
import threading
from agent.shares.smb.malloc import tune_malloc

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def allocate():
    everyone.wait()  # all threads live at once, so that none inherits the arena of one that ended
    with turn:
        bytes(bytearray(8 << 20))
    everyone.wait()

assert tune_malloc()
everyone, turn = threading.Barrier(8), threading.Lock()
before = resident()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr"), reason="no glibc")
def test_blocks_freed_by_one_thread_serve_the_next() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS_PROBE], capture_output=True, text=True, check=True
    )
    # Two blocks of 8 MiB live at a time; an arena for each of 8 threads would keep 128 MiB.
    assert int(done.stdout) < 64 << 20
