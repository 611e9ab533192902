"""kill -9 of agent, relay and signer in mid upload to each cloud: one exact disk, little sent twice, no orphan."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.sim.aws import AwsSim
from appliance.sim.azure import AzureSim
from appliance.sim.base import Simulator
from appliance.sim.gcp import GcpSim
from imaging.units import MiB
from tests.support.azure_jobs import self_signed
from tests.support.simthread import running_sim
from tests.support.stack import NAMES, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

SIZE = 160 * MiB
BANDWIDTH = 32 * MiB
KILL_AT = 96 * MiB
AGAIN = {"azure-disk": 64 * MiB + 512, "aws-snapshot": 56 * MiB, "gcp-image": 64 * MiB}
"""Bytes that may be sent twice: a second of journal (32 MiB at this limit) and what was in flight; below KILL_AT."""


class Cloud:
    """One kind of target, its simulator and how it is judged."""

    def __init__(self, kind: str, sim: Simulator) -> None:
        self.kind = kind
        self.sim = sim

    def target(self) -> dict:
        sim = self.sim
        if isinstance(sim, AzureSim):
            who = sim.identity
            credential = {
                "tenant_id": who.tenant,
                "client_id": who.client_id,
                "client_secret": who.client_secret,
            }
            return {
                "kind": self.kind, "subscription": who.subscription, "disk": "golden",
                "resource_group": sim.resource_group, "location": "westeurope",
                "management": sim.url, "authority": sim.url, "credential": credential,
            }  # fmt: skip
        if isinstance(sim, AwsSim):
            return {
                "kind": self.kind, "region": sim.region, "name": "golden", "os_type": "Linux",
                "endpoint": sim.url, "credential": sim.keys(),
            }  # fmt: skip
        key = {"service_account_key": sim.service_account_key()}
        return {
            "kind": self.kind, "project": sim.project, "bucket": sim.bucket, "image": "golden",
            "endpoint": sim.url, "credential": key,
        }  # fmt: skip

    def stored(self) -> bytes:
        sim = self.sim
        if isinstance(sim, AzureSim):
            return bytes(sim.disk_blob("golden").file.read(0, SIZE))
        if isinstance(sim, AwsSim):
            (snapshot,) = [s for s in sim.vault.state.snapshots.values() if s.client_token]
            return bytes(sim.snapshot(snapshot.id).file.read(0, SIZE))
        with sim.image_disk("golden").open("rb") as file:
            return file.read(SIZE)

    def objects(self) -> int:
        sim = self.sim
        if isinstance(sim, AzureSim):
            return len(sim.vault.state.disks)
        if isinstance(sim, AwsSim):
            state = sim.vault.state
            mine = [s for s in state.snapshots.values() if s.client_token]
            return len(mine) + len([i for i in state.images.values() if i.owner == "self"]) - 1
        state = sim.state
        return len(state.images) + len(state.objects) + len(state.uploads)


MAKERS = {"azure-disk": AzureSim, "aws-snapshot": AwsSim, "gcp-image": GcpSim}


@contextmanager
def running(kind: str, folder: Path) -> Iterator[tuple[Stack, Cloud]]:
    ca_file, tls = self_signed(folder)
    with (
        running_sim(MAKERS[kind], tls=tls, state_dir=folder / "sim") as sim,
        Stack(folder, cloud_ca=ca_file) as stack,
    ):
        (stack.share / "golden.raw").write_bytes(random.Random(5).randbytes(SIZE))
        stack.start_all()
        yield stack, Cloud(kind, sim)


def order(stack: Stack, cloud: Cloud, **args: object) -> str:
    source = {"kind": "local", "name": "disks"}
    spec = stack.job(
        source, "golden.raw", cloud.target(), format="raw", bandwidth=BANDWIDTH, **args
    )
    return stack.submit(spec)


def wait_for_bytes(cloud: Cloud, count: int) -> None:
    deadline = time.monotonic() + 60
    while cloud.sim.stats.bytes_stored < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_ended_well(stack: Stack, cloud: Cloud, job: str) -> None:
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", json.dumps(shown)
    assert shown["result"]["report"]["verified"]["root"] == shown["result"]["root"]
    assert cloud.stored() == (stack.share / "golden.raw").read_bytes()
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


@pytest.mark.parametrize("kind", ["aws-snapshot", "gcp-image"])
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


@pytest.mark.parametrize("kind", ["aws-snapshot", "gcp-image"])
def test_a_cancel_in_mid_disk_leaves_nothing(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        job = order(stack, cloud)
        wait_for_bytes(cloud, 32 * MiB)
        stack.ask(lambda client: client.cancel(job))
        shown = stack.wait(job)
        assert shown["state"] == "cancelled", shown
        if isinstance(cloud.sim, AwsSim):
            assert not [s for s in cloud.sim.vault.state.snapshots.values() if s.client_token]
        else:
            assert cloud.objects() == 0
