"""What a queue costs: jobs that do nothing, ordered all at once, from the order to the last result.

A real agent with its journal, the relay's double. Prints; asserts no seconds. Linear is the goal: twice the jobs,
twice the time.
"""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.agent_relay_double import relay
from tests.support.agent_world import StepStage, agent, prepare

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Two log lines a job would be most of what `make bench` prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("jobs", [50, 100, 200, 400, 800])
async def test_a_queue_of_jobs_that_do_nothing(tmp_path: Path, jobs: int) -> None:
    stage = StepStage(tmp_path / "effects", units=0)
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        orders = [double.line.upload(f"disk{i}") for i in range(jobs)]
        began = time.monotonic()
        await double.push(*orders)
        await double.until(lambda: len(double.results) == jobs, "all results")
        took = time.monotonic() - began
    sys.stdout.write(f"\n{jobs} jobs: {took:.2f} s, {took / jobs * 1000:.1f} ms a job\n")
