"""kill -9 of agent, relay and signer in mid upload to each cloud: one exact disk, little sent twice, no orphan."""

import json
import random
import time
from pathlib import Path

import pytest

from imaging.units import MiB
from tests.support.cloud_stack import MAKERS, SIZE, Cloud, order, running, sweep, wait_for_bytes
from tests.support.stack import NAMES, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

KILL_AT = 128 * MiB
AGAIN = {
    "azure-disk": 96 * MiB + 512,
    "aws-snapshot": 64 * MiB,
    "gcp-image": 96 * MiB,
    "aws-s3": 96 * MiB,
}
"""Bytes that may be sent twice: a second of journal (32 MiB at this limit) and what may be in flight (64 MiB of chunks
or parts, 32 of blocks); below KILL_AT."""


def check_ended_well(stack: Stack, cloud: Cloud, job: str) -> None:
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", json.dumps(shown)
    assert shown["result"]["report"]["verified"]["root"] == shown["result"]["root"]
    assert cloud.stored() == (stack.share / "golden.raw").read_bytes()
    assert cloud.objects() == 1
    assert sweep(stack, cloud, apply=True) == []
    assert cloud.objects() == 1


@pytest.mark.parametrize("kind", MAKERS)
def test_a_kill_in_mid_disk_sends_little_again(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        job = order(stack, cloud)
        wait_for_bytes(cloud, KILL_AT)
        stack.kill("agent")
        stack.start("agent")
        check_ended_well(stack, cloud, job)
        assert cloud.sim.stats.bytes_stored <= SIZE + AGAIN[kind] + MiB


@pytest.mark.parametrize("kind", ["aws-snapshot", "aws-s3", "gcp-image"])
@pytest.mark.parametrize("seed", range(1))
def test_random_kills_end_in_one_exact_disk(kind: str, seed: int, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        kill_at_random(stack, cloud, random.Random(seed), kills=3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(100, 110))
def test_fifty_random_kills(kind: str, seed: int, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        kill_at_random(stack, cloud, random.Random(seed), kills=5)


def kill_at_random(stack: Stack, cloud: Cloud, rng: random.Random, *, kills: int) -> None:
    """Kill somebody at random moments: in mid disk, while it is completed, read back, or made an image."""
    job = order(stack, cloud)
    for _ in range(kills):
        time.sleep(rng.uniform(0.05, 2.5))  # the random moment that this is about
        name = rng.choice((*NAMES, "agent"))
        stack.kill(name)
        time.sleep(rng.uniform(0.0, 0.3))
        stack.start(name)
    check_ended_well(stack, cloud, job)


@pytest.mark.parametrize("kind", ["aws-snapshot", "aws-s3", "gcp-image"])
def test_a_cancel_in_mid_disk_leaves_nothing(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        job = order(stack, cloud)
        wait_for_bytes(cloud, 32 * MiB)
        stack.ask(lambda client: client.cancel(job))
        shown = stack.wait(job)
        assert shown["state"] == "cancelled", shown
        assert cloud.objects() == 0
