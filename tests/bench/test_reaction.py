"""How quickly the house reacts (progress, cancel), and what big disks cost in memory and bytes.

Real relay, signer and agent, the Azure simulator as target. Prints; asserts no seconds.
"""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.sim.azure import AzureSim
from imaging.units import GiB, MiB
from tests.support.stack import Stack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


def order(stack: Stack, sim: AzureSim, path: str, **args) -> str:
    target = {
        "kind": "azure-page-blob",
        "endpoint": sim.blob_url,
        "container": "vhds",
        "blob": f"{path}.vhd",
        "credential": {"account_key": sim.key},
    }
    return stack.submit(stack.job({"kind": "local", "name": "disks"}, path, target, **args))


def test_progress_and_cancel(stack: Stack, sim: AzureSim) -> None:
    (stack.share / "a.raw").write_bytes(random.Random(1).randbytes(128 * MiB))
    job = order(stack, sim, "a.raw", format="raw", bandwidth=8 * MiB)
    lags, ended = asyncio.run(watch_and_cancel(stack, job, seconds=6.0))
    lags.sort()
    sys.stdout.write(
        f"\nprogress at the SSE client: {len(lags)} events, median {lags[len(lags) // 2]:.2f} s, "
        f"latest {lags[-1]:.2f} s behind the agent's clock (goal: within 1 s)\n"
        f"cancel: {ended:.2f} s from the request to the final state (goal: 2 s); "
        f"left behind: {len(sim.vault.blobs)} blobs\n"
    )
    assert not sim.vault.blobs


async def watch_and_cancel(stack: Stack, job: str, *, seconds: float) -> tuple[list[float], float]:
    """Return the lag of every progress event, and the seconds from the cancel to the end."""
    lags: list[float] = []
    began = time.time()
    asked = 0.0
    async with stack.client() as client:
        async for event in client.watch(job):
            if event.kind == "progress":
                lags.append(time.time() - event.data["at"] / 1000)
            if not asked and time.time() - began > seconds:
                asked = time.time()
                await client.cancel(job)
            if event.final:
                return lags, time.time() - asked
    raise AssertionError("the job never ended")


@pytest.mark.parametrize("name", ["dense-1-gib", "sparse-64-gib"])
def test_memory_and_bytes(stack: Stack, sim: AzureSim, name: str) -> None:
    path = stack.share / name
    size, data = (GiB, GiB) if name.startswith("dense") else (64 * GiB, 200 * MiB)
    rng = random.Random(4)
    with path.open("wb") as file:
        file.truncate(size)
        step = size // (data // (8 * MiB))
        for offset in range(0, size, step):
            file.seek(offset)
            file.write(rng.randbytes(8 * MiB))
    if name.startswith("sparse"):
        subprocess.run(
            [
                "qemu-img",
                "convert",
                "-f",
                "raw",
                "-O",
                "vhdx",
                "-o",
                "subformat=dynamic",
                path,
                f"{path}.vhdx",
            ],
            check=True,
        )
        path = Path(f"{path}.vhdx")
    agent = next(p for p in stack._processes.running if p.name == "agent").child.pid
    job = order(stack, sim, path.name, verify="full")
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", shown
    peak = next(
        line.split()[1]
        for line in Path(f"/proc/{agent}/status").read_text().splitlines()
        if "VmHWM" in line
    )
    transfer = shown["result"]["report"]["transfer"]
    sys.stdout.write(
        f"\n{name}: {size / GiB:.0f} GiB, {data / MiB:.0f} MiB written: {transfer['total'] / MiB:.0f} MiB read, "
        f"{transfer['sent'] / MiB:.0f} MiB sent, agent's peak RSS {int(peak) / 1024:.0f} MiB (goal: 256)\n"
    )
