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
