"""kill -9 of agent, relay, signer and all of them in the middle of an upload, as real processes.

One end, bit-exact, nothing sent twice but what was in flight. The Azure simulator is the target.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.sim.azure import AzureSim
from imaging.units import MiB
from tests.support.simazure import running_azure
from tests.support.stack import NAMES, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

SIZE = 160 * MiB
BANDWIDTH = 32 * MiB
KILL_AT = 96 * MiB
"""Seconds into the transfer, so that most receipts are durable when the kill comes."""
AGAIN = 48 * MiB + 512
"""Bytes that may be sent twice: one second of journal, what was in flight, and the footer. Far below KILL_AT."""


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[AzureSim]:
    with running_azure(state_dir=tmp_path / "azure") as sim:
        sim.make_container("vhds")
        yield sim


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        (stack.share / "golden.raw").write_bytes(random.Random(5).randbytes(SIZE))
        stack.start_all()
        yield stack


def upload(stack: Stack, sim: AzureSim, blob: str) -> str:
    target = {
        "kind": "azure-page-blob",
        "endpoint": sim.blob_url,
        "container": "vhds",
        "blob": blob,
        "credential": {"account_key": sim.key},
    }
    source = {"kind": "local", "name": "disks"}
    return stack.submit(stack.job(source, "golden.raw", target, format="raw", bandwidth=BANDWIDTH))


def stored(sim: AzureSim, blob: str) -> bytes:
    return bytes(sim.blob("vhds", blob).file.read(0, SIZE))


def check_ended_well(stack: Stack, sim: AzureSim, job: str, blob: str) -> None:
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", shown
    assert shown["result"]["report"]["verified"]["root"] == shown["result"]["root"]
    assert stored(sim, blob) == (stack.share / "golden.raw").read_bytes()


def wait_for_bytes(sim: AzureSim, count: int) -> None:
    deadline = time.monotonic() + 60
    while sim.stats.bytes_stored < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("victims", [("agent",), ("relay",), ("signer",), NAMES], ids="-".join)
def test_a_kill_in_the_middle_costs_nothing_but_what_was_in_flight(
    stack: Stack, sim: AzureSim, victims: tuple[str, ...]
) -> None:
    job = upload(stack, sim, "golden.vhd")
    wait_for_bytes(sim, KILL_AT)
    for name in victims:
        stack.kill(name)
    for name in victims:
        stack.start(name)
    check_ended_well(stack, sim, job, "golden.vhd")
    assert sim.stats.bytes_stored <= SIZE + AGAIN


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_of_anybody_end_in_one_exact_disk(
    stack: Stack, sim: AzureSim, seed: int
) -> None:
    rng = random.Random(seed)
    kill_at_random(stack, sim, rng, kills=4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_forty_random_kills(stack: Stack, sim: AzureSim, seed: int) -> None:
    kill_at_random(stack, sim, random.Random(seed), kills=4)


def kill_at_random(stack: Stack, sim: AzureSim, rng: random.Random, *, kills: int) -> None:
    job = upload(stack, sim, "golden.vhd")
    for number in range(kills):
        time.sleep(rng.uniform(0.05, 2.0))  # the random moment that this is about
        if not number:
            assert sim.stats.bytes_stored < SIZE  # at least the first kill is one in mid upload
        name = rng.choice(NAMES)
        stack.kill(name)
        time.sleep(rng.uniform(0.0, 0.3))
        stack.start(name)
    check_ended_well(stack, sim, job, "golden.vhd")
    jobs = stack.ask(_all)
    assert [j["id"] for j in jobs] == [job]


async def _all(client) -> list:
    return [job async for job in client.jobs()]


def test_a_cancel_ends_the_transfer_and_leaves_nothing(stack: Stack, sim: AzureSim) -> None:
    job = upload(stack, sim, "golden.vhd")
    wait_for_bytes(sim, 8 * MiB)
    stack.ask(lambda client: client.cancel(job))
    assert stack.wait(job)["state"] == "cancelled"
    assert "vhds/golden.vhd" not in sim.vault.blobs


def test_a_cancel_that_waited_for_a_dead_agent_wins(stack: Stack, sim: AzureSim) -> None:
    job = upload(stack, sim, "golden.vhd")
    wait_for_bytes(sim, 8 * MiB)
    stack.kill("agent")
    stack.ask(lambda client: client.cancel(job))
    stack.start("agent")
    assert stack.wait(job)["state"] == "cancelled"
    assert "vhds/golden.vhd" not in sim.vault.blobs
