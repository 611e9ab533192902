"""A whole house of processes in front of one cloud's simulator, and how that cloud is judged."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.sim.aws import AwsSim
from appliance.sim.aws.app import BUCKET
from appliance.sim.azure import AzureSim
from appliance.sim.base import Simulator
from appliance.sim.gcp import GcpSim
from imaging.units import MiB
from tests.support.azure_jobs import self_signed
from tests.support.simthread import running_sim
from tests.support.stack import APPLIANCE, TENANT, Stack

SIZE = 160 * MiB
BANDWIDTH = 32 * MiB


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
            bucket = {"bucket": BUCKET} if self.kind == "aws-s3" else {}
            return {
                "kind": self.kind, "region": sim.region, "name": "golden", "os_type": "Linux",
                "endpoint": sim.url, "credential": sim.keys(), **bucket,
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
            (snapshot,) = [
                s for s in sim.vault.state.snapshots.values() if not s.licensed and s.tags
            ]
            return bytes(sim.snapshot(snapshot.id).file.read(0, SIZE))
        with sim.image_disk("golden").open("rb") as file:
            return file.read(SIZE)

    def objects(self) -> int:
        sim = self.sim
        if isinstance(sim, AzureSim):
            return len(sim.vault.state.disks)
        if isinstance(sim, AwsSim):
            state = sim.vault.state
            stock = {i.snapshot for i in state.images.values() if i.owner == "amazon"}
            mine = [s for s in state.snapshots if s not in stock]
            images = [i for i in state.images.values() if i.owner == "self"]
            left = len(state.objects) + len(state.uploads)
            return max(len(mine), len(images)) + left  # an AMI and its snapshot are one
        state = sim.state
        return len(state.images) + len(state.objects) + len(state.uploads)


MAKERS = {"azure-disk": AzureSim, "aws-snapshot": AwsSim, "aws-s3": AwsSim, "gcp-image": GcpSim}


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


def sweep(stack: Stack, cloud: Cloud, *, apply: bool) -> list[dict]:
    """Order a sweep with the cloud's credential; return what it found."""
    args = {"apply": apply, "target": cloud.target()}
    spec = {"tenant": TENANT, "appliance": APPLIANCE, "op": "sweep", "args": args}
    shown = stack.wait(stack.submit(spec))
    assert shown["state"] == "succeeded", shown
    return shown["result"]["report"]["leftovers"]
