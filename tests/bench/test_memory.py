"""What big disks and many jobs cost a whole agent: its peak RSS, its journal, seconds. Prints; the goal is 256 MiB.

Real relay, signer and agent, the Azure simulator as target.
"""

import random
import sys
import time
from pathlib import Path

import pytest

from appliance.sim.azure import AzureSim
from imaging.units import KiB, MiB, TiB
from tests.support.disks import Vhdx, write_sparse
from tests.support.stack import Stack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

PIECE = 512 * KiB


def upload(stack: Stack, sim: AzureSim, path: Path) -> str:
    """Upload one image and return what it cost, as a line."""
    began = time.monotonic()
    target = {
        "kind": "azure-page-blob",
        "endpoint": sim.blob_url,
        "container": "vhds",
        "blob": f"{path.name}-{time.time_ns()}.vhd",
        "credential": {"account_key": sim.key},
    }
    job = stack.submit(stack.job({"kind": "local", "name": "disks"}, path.name, target))
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", shown
    report = shown["result"]["report"]
    return (
        f"{time.monotonic() - began:5.1f} s, {report['transfer']['sent'] / MiB:4.0f} MiB sent, "
        f"{report['verified']['bytes_read'] / MiB:4.0f} MiB read back, peak RSS {peak(stack):.0f} MiB, "
        f"journal {journal(stack) / MiB:.1f} MiB"
    )


def peak(stack: Stack) -> float:
    agent = next(p for p in stack._processes.running if p.name == "agent").child.pid
    lines = Path(f"/proc/{agent}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if "VmHWM" in line)) / KiB


def journal(stack: Stack) -> int:
    found = [path for path in stack.folder.rglob("journal.sqlite3*") if path.suffix != ".reserve"]
    return sum(path.stat().st_size for path in found)


def test_five_dense_jobs_one_after_the_other(stack: Stack, sim: AzureSim) -> None:
    rng = random.Random(4)
    for number in range(1, 6):
        path = stack.share / f"dense-{number}.raw"
        with path.open("wb") as file:
            for _ in range(512 // 8):
                file.write(rng.randbytes(8 * MiB))
        sys.stdout.write(f"\n512 MiB dense, job {number}: {upload(stack, sim, path)}\n")
        path.unlink()
        sim.vault.blobs.clear()


@pytest.mark.parametrize("kind", ["raw", "vhdx, blocks of 1 MiB", "vhdx, blocks of 32 MiB"])
def test_4_tib_with_100_mib_of_data(stack: Stack, sim: AzureSim, kind: str) -> None:
    size, rng = 4 * TiB, random.Random(5)
    path = stack.share / f"sparse.{kind[:4].strip()}"
    if kind == "raw":
        step = size // 200
        write_sparse(
            path, size, {i * step // PIECE * PIECE: rng.randbytes(PIECE) for i in range(200)}
        )
    else:
        block = 32 * MiB if "32" in kind else MiB
        step = size // block // 100
        blocks = {i * step: rng.randbytes(MiB) for i in range(100)}
        Vhdx(size, blocks=blocks, block_size=block).write(path)
    sys.stdout.write(f"\n4 TiB {kind}: {upload(stack, sim, path)}\n")
