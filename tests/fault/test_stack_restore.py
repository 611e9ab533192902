"""Older copies of the relay's, the signer's and the agent's database put back under the real processes.

Nothing is lost for good, nothing runs twice, and afterwards new orders work again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.units import MiB
from tests.support.stack import NAMES, Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        for name in ("a", "b", "c"):
            (stack.share / f"{name}.raw").write_bytes(random.Random(name).randbytes(2 * MiB))
        stack.start_all()
        yield stack


def move(stack: Stack, name: str) -> str:
    job = stack.submit(stack.local_job(f"{name}.raw", name, format="raw"))
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", shown
    assert (stack.cloud / f"{name}.raw").read_bytes() == (stack.share / f"{name}.raw").read_bytes()
    return job


@pytest.mark.parametrize("name", NAMES)
def test_an_older_database_is_noticed_and_mended(stack: Stack, name: str) -> None:
    first = move(stack, "a")
    stack.stop(name)
    kept = stack.save(name)
    stack.start(name)
    stack.wait_online()
    second = move(stack, "b")
    made = {path.name: path.stat().st_mtime_ns for path in stack.cloud.iterdir()}

    stack.kill(name)
    stack.restore(name, kept)
    stack.start(name)
    stack.wait_online()
    third = stack.submit_when_possible(stack.local_job("c.raw", "c", format="raw"))

    assert stack.wait(third)["state"] == "succeeded"
    assert (stack.cloud / "c.raw").read_bytes() == (stack.share / "c.raw").read_bytes()
    for job in (first, second):
        assert stack.wait(job)["state"] == "succeeded"
    unchanged = {
        path.name: path.stat().st_mtime_ns for path in stack.cloud.iterdir() if path.name in made
    }
    assert unchanged == made  # nothing ran twice


def test_a_relay_that_forgot_everything_is_refilled(stack: Stack) -> None:
    first = move(stack, "a")
    stack.stop("relay")
    for path in stack.database("relay"):
        path.unlink()
    stack.start("relay")
    stack.wait_online()
    second = stack.submit_when_possible(stack.local_job("b.raw", "b", format="raw"))
    assert stack.wait(second)["state"] == "succeeded"
    assert first != second


def test_restarts_alone_raise_no_epoch(stack: Stack) -> None:
    """The relay hands the last inventory, which is older than the last orders, to each signer that attaches."""
    stack.raise_epoch()
    first = stack.submit_when_possible(stack.local_job("a.raw", "a", format="raw"))
    assert stack.wait(first)["state"] == "succeeded"
    move(stack, "b")
    for names in (("relay",), ("signer",), ("agent",), NAMES):
        for name in names:
            stack.kill(name)
        for name in reversed(names):
            stack.start(name)
        stack.wait_online()
    last = stack.submit_when_possible(stack.local_job("c.raw", "c", format="raw"))
    assert stack.wait(last)["state"] == "succeeded"
    (appliance,) = stack.ask(lambda client: client.appliances())
    assert (appliance["epoch"], appliance["have"]) == (2, 3)
