"""SIGKILL of a real agent around its own commits: every command ends once, and nothing acknowledged is done again."""

import json
from pathlib import Path

import pytest

from protocol.messages import Ack, Result
from tests.support.agent_relay_double import Double, relay
from tests.support.agent_world import AgentProcess, prepare, settings

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]
UNITS = 3
# Writing transactions of one upload: begin, time, inbox, start, intent, created, 3 receipts, no return, end, receipt.
POINTS = [
    f"{when}:{number}" for number in (1, 3, 4, 6, 8, 10, 11, 12) for when in ("before", "after")
]


def _process(folder: Path, double: Double) -> AgentProcess:
    prepare(folder, double.url)
    file = folder / "agent.json"
    file.write_text(json.dumps(settings(folder / "state", double.url, limits={"drain_s": 3.0})))
    return AgentProcess(file, folder / "effects")


def _check(double: Double, agent: AgentProcess, orders: int) -> None:
    assert double.numbers() == list(range(1, orders + 1))
    assert {result.status for result in double.results.values()} == {"succeeded"}
    lines = agent.lines()
    for index in range(orders):
        mine = [line for line in lines if line.startswith(f"disk{index} ")]
        units = [line for line in mine if " unit " in line]
        assert sorted(set(units)) == [f"disk{index} unit {n}" for n in range(UNITS)]
        attempts = sum(" attempt " in line for line in mine)
        assert len(units) <= UNITS + attempts - 1, "a unit with a durable receipt was done again"


@pytest.mark.parametrize("die", POINTS)
async def test_a_job_survives_a_kill_around_every_commit(tmp_path: Path, die: str) -> None:
    async with relay() as double:
        agent = _process(tmp_path, double)
        order = double.line.upload("disk0")
        double.queue[1, 1] = order[1]
        agent.start(die=die, units=UNITS)
        await double.until(lambda: agent.dead, f"death at {die}")
        assert agent.process is not None
        assert agent.process.returncode == -9
        before = double.connections
        agent.start(units=UNITS)
        await double.result(order[0])
        await double.until(lambda: double.connections > before and double.connected, "new session")
        assert await agent.stop(double) == 0
    _check(double, agent, 1)


@pytest.mark.parametrize("kind", [Ack, Result], ids=["at-ack", "at-result"])
async def test_a_job_survives_a_kill_when_its_statement_arrives(tmp_path: Path, kind: type) -> None:
    async with relay(confirm=False) as double:
        agent = _process(tmp_path, double)
        double.store_results = False
        double.on_statement = lambda statement: (
            agent.kill() if isinstance(statement, kind) else None
        )
        orders = [double.line.upload(f"disk{i}") for i in range(2)]
        for number, order in enumerate(orders, 1):
            double.queue[1, number] = order[1]
        agent.start(units=UNITS)
        await double.until(lambda: agent.dead, "death")
        double.on_statement = lambda _statement: None
        double.store_results = True
        agent.start(units=UNITS)
        await double.until(lambda: len(double.results) == 2, "results")
        assert await agent.stop(double) == 0
    _check(double, agent, 2)


async def test_three_deaths_without_progress_end_the_job_as_a_crash_loop(tmp_path: Path) -> None:
    async with relay() as double:
        agent = _process(tmp_path, double)
        order = double.line.upload("disk0")
        double.queue[1, 1] = order[1]
        for _ in range(3):
            agent.start(die="unit", units=UNITS)
            await double.until(lambda: agent.dead, "death")
        agent.start(units=UNITS)
        result = await double.result(order[0])
        assert await agent.stop(double) == 0
    assert (result.status, result.code, result.attempt) == ("failed", "job.crash-loop", 3)


async def test_a_cancel_that_waited_wins_over_the_resume(tmp_path: Path) -> None:
    async with relay() as double:
        agent = _process(tmp_path, double)
        order = double.line.upload("disk0")
        double.queue[1, 1] = order[1]
        agent.start(die="unit", units=UNITS)
        await double.until(lambda: agent.dead, "death")
        cancel = double.line.cancel(*order)
        double.queue[1, 2] = cancel[1]
        agent.start(units=UNITS)
        result = await double.result(order[0])
        told = await double.result(cancel[0])
        assert await agent.stop(double) == 0
    assert (result.status, result.code) == ("cancelled", "job.cancelled")
    assert told.outputs[0].value == {"found": "running"}
    assert agent.lines()[-1] == "disk0 removed"
    assert "disk0 attempt 2" not in agent.lines()


async def test_a_clean_stop_is_no_crash_and_the_job_goes_on(tmp_path: Path) -> None:
    async with relay() as double:
        agent = _process(tmp_path, double)
        order = double.line.upload("disk0")
        double.queue[1, 1] = order[1]
        for attempt in range(1, 5):
            agent.start(die="hold", units=UNITS)
            await double.until(lambda n=attempt: f"disk0 attempt {n}" in agent.lines(), "attempt")
            assert await agent.stop(double) == 0
        agent.start(units=UNITS)
        result = await double.result(order[0])
        assert await agent.stop(double) == 0
    assert (result.status, result.attempt) == ("succeeded", 5)
