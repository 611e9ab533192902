"""A full disk under the journal: a clear stop with its own code, nothing lost, and it goes on when there is space."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import AgentConfig
from tests.support.agent_relay_double import ref, relay
from tests.support.agent_world import StepStage, agent, prepare

pytestmark = pytest.mark.fault
DISK = 24 * 1024 * 1024
RESERVE = 4 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _config(folder: Path, url: str) -> AgentConfig:
    return prepare(folder, url, journal={"reserve": RESERVE}, limits={"slots": 1})


def _fill(folder: Path) -> Path:
    """Take every free byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096, 512):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    return ballast


async def test_a_full_disk_refuses_orders_still_cancels_and_recovers(
    small_disk: Path, tmp_path: Path
) -> None:
    began, never = asyncio.Event(), asyncio.Event()

    async def gate(_unit: int) -> None:
        began.set()
        await never.wait()

    stage = StepStage(tmp_path / "effects", units=1, gate=gate)
    async with relay() as double, agent(_config(small_disk, double.url), stage) as app:
        running = double.line.upload("running")
        await double.push(running)
        await began.wait()
        ballast = _fill(small_disk)
        while not app.journal.full:  # what lies free inside the journal's own pages goes first
            order = double.line.upload("more", workflow="w" * 60)
            await double.push(order)
            await double.until(lambda seq=order[0].seq: double.highest[1] >= seq, "ack")
        last = double.line.upload("last")
        await double.push(last)
        result = await double.result(last[0])
        cancel = double.line.cancel(*running)
        await double.push(cancel)
        cancelled = await double.result(running[0])
        ballast.unlink()
        stage.gate = None
        again = double.line.upload("again")
        await double.push(again)
        first_try = await double.result(again[0])
        once_more = double.line.upload("once-more")
        await double.push(once_more)
        recovered = await double.result(once_more[0])
    assert (result.status, result.code) == ("refused", "journal.full")
    assert cancelled.status == "cancelled"
    assert first_try.status in {"succeeded", "refused"}
    assert recovered.status == "succeeded"
    assert double.numbers() == list(range(1, len(double.numbers()) + 1))


async def test_a_job_that_meets_a_full_disk_fails_clearly_and_a_retry_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    stage = StepStage(tmp_path / "effects", units=4000)
    ballast: list[Path] = []

    async def gate(unit: int) -> None:
        if unit == 2:
            ballast.append(_fill(small_disk))

    stage.gate = gate
    async with relay() as double, agent(_config(small_disk, double.url), stage) as app:
        first = double.line.upload()
        await double.push(first)
        failed = await double.result(first[0])
        done = len([line for line in stage.lines() if " unit " in line])
        ballast[0].unlink()
        stage.gate = None
        await double.until(lambda: app.runner.kick() or not app.journal.full, "space again")
        stage.units = done + 2
        again = double.line.upload(retry_of=ref(first[0]))
        await double.push(again)
        ended = await double.result(again[0])
    assert (failed.status, failed.code) == ("failed", "journal.full")
    assert ended.status == "succeeded"
    units = [line for line in stage.lines() if " unit " in line]
    assert len(set(units)) == done + 2
    assert len(units) <= done + 3, "only what was in flight is done again"
