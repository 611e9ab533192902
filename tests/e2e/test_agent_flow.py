"""A whole agent against a relay double: orders run once, in order, and their results arrive signed and numbered."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent import control, runner
from agent.schedule import survey
from agent.trust import CLOCK_OFF, Clocks
from protocol.messages import After, ResultsThrough
from protocol.ops import SetLimitsArgs
from protocol.signed import parse_envelope
from tests.support import protocol_world as w
from tests.support.agent_relay_double import ref, relay
from tests.support.agent_world import ROOT_DIGEST, Broken, StepStage, agent, prepare

pytestmark = pytest.mark.e2e


def _stage(folder: Path, **changes: object) -> StepStage:
    return StepStage(folder / "effects", **changes)  # type: ignore[arg-type]


async def test_a_signed_upload_runs_once_and_its_result_is_signed_and_numbered(
    tmp_path: Path,
) -> None:
    stage = _stage(tmp_path)
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        order = double.line.upload()
        await double.push(order)
        result = await double.result(order[0])
    assert (result.status, result.n, result.attempt, result.root) == (
        "succeeded",
        1,
        1,
        ROOT_DIGEST,
    )
    assert result.outputs[0].value == {"id": "id-disk"}
    assert stage.lines() == [
        "disk attempt 1", "disk unit 0", "disk unit 1", "disk unit 2", "disk done",
    ]  # fmt: skip
    report = json.loads(double.reports[order[0].id])
    assert report["units"] == 3


async def test_many_orders_are_acknowledged_together_and_all_end(tmp_path: Path) -> None:
    stage = _stage(tmp_path, units=1)
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        orders = [double.line.upload(f"disk{i}") for i in range(100)]
        await double.push(*orders)
        await double.until(lambda: len(double.results) == 100, "100 results")
    assert double.numbers() == list(range(1, 101))
    assert len([line for line in stage.lines() if line.endswith("done")]) == 100
    assert len(double.acks) < 100


async def test_a_long_queue_is_not_read_again_while_no_slot_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(conn: Any, **options: Any) -> list[Any]:
        found = survey(conn, **options)
        seen.append(len(found))
        return found

    gate = asyncio.Event()
    stage = _stage(tmp_path, gate=lambda _unit: gate.wait())
    async with relay() as double, agent(prepare(tmp_path, double.url), stage) as app:
        await double.push(*(double.line.upload(f"disk{i}") for i in range(40)))
        await double.until(lambda: len(app.runner.running) == 2, "both slots")
        await double.until(lambda: app.orders.state.head.have == 40, "all orders")
        monkeypatch.setattr(runner, "survey", counted)
        monkeypatch.setattr(runner, "RECHECK_S", 3600.0)
        app.runner.kick()
        await double.until(lambda: seen, "a look")
        gate.set()
        await double.until(lambda: len(double.results) == 40, "all results")
    assert seen[0] == 2


async def test_last_moments_are_looked_at_while_no_slot_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RECHECK_S", 0.05)
    gate = asyncio.Event()
    stage = _stage(tmp_path, gate=lambda _unit: gate.wait())
    config = {"limits": {"slots": 1, "drain_s": 3.0}}
    async with relay() as double, agent(prepare(tmp_path, double.url, **config), stage) as app:
        first = double.line.upload("first")
        await double.push(first)
        await double.until(lambda: "first attempt 1" in stage.lines(), "the first job")
        late = double.line.upload("late", start_by=app.orders.trust.now_ms() + 1000)
        await double.push(late)
        refused = await double.result(late[0])
        gate.set()
        done = await double.result(first[0])
    assert (refused.status, refused.code) == ("refused", "job.start-by")
    assert done.status == "succeeded"


async def test_a_failing_stage_ends_with_its_code_and_a_retry_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    stage = _stage(tmp_path, fail=(1, Broken("the stage broke")))
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        first = double.line.upload()
        await double.push(first)
        failed = await double.result(first[0])
        stage.fail = None
        again = double.line.upload(retry_of=ref(first[0]))
        await double.push(again)
        done = await double.result(again[0])
        third = double.line.upload(retry_of=ref(first[0]))
        await double.push(third)
        refused = await double.result(third[0])
    assert (failed.status, failed.code) == ("failed", "test.broken")
    assert done.status == "succeeded"
    assert stage.lines()[3:] == ["disk attempt 1", "disk unit 2", "disk done"]
    assert (refused.status, refused.code) == ("refused", "job.not-retryable")


async def test_a_package_that_the_appliance_lacks_is_named(tmp_path: Path) -> None:
    stage = _stage(tmp_path, fail=(1, ModuleNotFoundError("No module named 'azure'")))
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        first = double.line.upload()
        await double.push(first)
        failed = await double.result(first[0])
    assert (failed.status, failed.code) == ("failed", "agent.package-missing")


async def test_cancel_stops_a_running_job_and_names_what_is_left(tmp_path: Path) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def gate(unit: int) -> None:
        if unit == 1:
            reached.set()
            await never.wait()

    stage = _stage(tmp_path, gate=gate, leave=["snapshot s-1: still in use"])
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        order = double.line.upload()
        await double.push(order)
        await reached.wait()
        cancel = double.line.cancel(*order)
        await double.push(cancel)
        result = await double.result(order[0])
        told = await double.result(cancel[0])
    assert (result.status, result.code) == ("cancelled", "job.cancelled")
    assert (told.status, told.outputs[0].value) == ("succeeded", {"found": "running"})
    assert json.loads(double.reports[order[0].id])["left"] == ["snapshot s-1: still in use"]
    assert stage.lines()[-1] == "disk removed"


async def test_jobs_that_write_to_one_disk_never_run_at_the_same_time(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def gate(unit: int) -> None:
        if unit == 1:
            await go.wait()

    stage = _stage(tmp_path, gate=gate)
    async with (
        relay() as double,
        agent(prepare(tmp_path, double.url, limits={"slots": 3}), stage) as app,
    ):
        first, same, other = (double.line.upload(disk) for disk in ("disk", "disk", "other"))
        await double.push(first, same, other)
        await double.until(lambda: "other unit 0" in stage.lines(), "the third job")
        assert stage.lines().count("disk attempt 1") == 1
        assert len(app.runner.running) == 2
        go.set()
        results = [await double.result(order[0]) for order in (first, same, other)]
    assert [result.status for result in results] == ["succeeded"] * 3
    lines = [line for line in stage.lines() if line.startswith("disk")]
    assert lines.index("disk done") < len(lines) - 1 - lines[::-1].index("disk attempt 1")


async def test_a_chain_runs_in_order_and_a_failed_predecessor_refuses_its_successors(
    tmp_path: Path,
) -> None:
    stage = _stage(tmp_path, fail=(0, Broken("no")))
    async with relay() as double, agent(prepare(tmp_path, double.url), stage):
        first = double.line.upload("first")
        after = After(
            id=first[0].id,
            audience=w.APPLIANCE,
            device_key=w.DEVICE.public,
            digest=parse_envelope(first[1], limit=2**20).digest,
        )
        second = double.line.upload("second", after=(after,), start_by=w.T0 + 20 * w.HOUR_MS)
        await double.push(first, second)
        result = await double.result(second[0])
    assert (result.status, result.code) == ("refused", "job.predecessor-failed")
    assert not any(line.startswith("second") for line in stage.lines())


async def test_limits_take_effect_at_acceptance_and_survive_a_restart(tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, stage) as app:
            order = double.line.order("set-limits", SetLimitsArgs(bandwidth=1_000_000))
            await double.push(order)
            assert (await double.result(order[0])).status == "succeeded"
            assert app.runner.pacing.limiter.rate == 1_000_000
        async with agent(config, stage) as app:
            assert app.runner.pacing.limiter.rate == 1_000_000


async def test_a_jobs_own_limit_holds_at_once_and_after_a_restart(tmp_path: Path) -> None:
    held, never = asyncio.Event(), asyncio.Event()
    gates = {1: never}

    async def gate(unit: int) -> None:
        if unit in gates:
            held.set()
            await gates[unit].wait()

    stage = _stage(tmp_path, gate=gate)
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        order = double.line.upload()
        async with agent(config, stage) as app:
            await double.push(order)
            await held.wait()
            limit = double.line.order(
                "set-limits", SetLimitsArgs(bandwidth=800_000, job=order[0].id)
            )
            await double.push(limit)
            assert (await double.result(limit[0])).status == "succeeded"
            assert app.runner.pacing.limiter.rate is None  # the appliance's own is untouched
        held.clear()
        gates[1], gates[2] = asyncio.Event(), asyncio.Event()
        gates[1].set()
        async with agent(config, stage) as app:  # stored: the order itself names no limit
            await held.wait()
            lift = double.line.order(
                "set-limits", SetLimitsArgs(bandwidth=900_000, job=order[0].id)
            )
            await double.push(lift)
            await double.result(lift[0])
            gates[2].set()
            assert (await double.result(order[0])).status == "succeeded"
    assert stage.rates == [None, 800_000, 900_000]


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(600, "600 s ahead of signed time"), (-600, "600 s behind signed time"), (30, "")],
    ids=["ahead", "behind", "tolerated"],
)
async def test_a_clock_that_is_off_is_named_and_stops_no_job(
    tmp_path: Path, ahead_s: float, said: str
) -> None:
    began = time.monotonic()
    async with relay() as double:
        clocks = Clocks(
            boot=time.monotonic,
            wall=lambda: double.now / 1000 + ahead_s + time.monotonic() - began,
            mono=time.monotonic,
        )
        with structlog.testing.capture_logs() as logs:
            config = prepare(tmp_path, double.url)
            async with agent(config, _stage(tmp_path), clocks=clocks):
                order = double.line.upload()
                await double.push(order)
                done = await double.result(order[0])
                status = await control.ask(config.control_path, {"get": "status"})
    assert done.status == "succeeded"
    warned = [line["problem"] for line in logs if line.get("code") == CLOCK_OFF]
    if said:
        side = said.split(" s ")[1]
        assert side in status["problem"]
        assert CLOCK_OFF in status["problem"]
        assert side in warned[0]
    else:
        assert (status["problem"], warned) == ("", [])


async def test_nothing_starts_before_this_sessions_signed_time_came(tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    async with relay(answer_time=False) as double, agent(prepare(tmp_path, double.url), stage):
        order = double.line.upload()
        await double.push(order)
        await double.until(lambda: double.connected, "a connection")
        await double.send_command(order[1])  # a relay that sends without being asked is cut off
        await double.until(lambda: double.connections >= 2, "a new connection")
        assert double.acks == []
        double.answer_time = True
        await double.drop(1001)  # asked again at once, not after the round trip's 10 s
        await double.until(lambda: double.result_of(order[0]), "result")
    assert len([line for line in stage.lines() if line.endswith("done")]) == 1


async def test_what_was_accepted_earlier_starts_only_with_this_sessions_signed_time(
    tmp_path: Path,
) -> None:
    hold = asyncio.Event()

    async def gate(_unit: int) -> None:
        await hold.wait()

    stage = _stage(tmp_path, units=1, gate=gate)
    async with relay() as double:
        config = prepare(tmp_path, double.url, limits={"slots": 1, "drain_s": 0.2})
        first, second = double.line.upload("first"), double.line.upload("second")
        async with agent(config, stage) as app:
            await double.push(first, second)
            await double.until(lambda: "first attempt 1" in stage.lines(), "a start")
            double.answer_time = False
            seen = double.connections
            await double.drop(1001)
            await double.until(lambda: double.connections > seen and double.connected, "back")
            hold.set()
            assert (await double.result(first[0])).status == "succeeded"
            # turns in which a scheduler that trusted the session before would have started it
            for _ in range(50):
                app.runner.kick()
                await app.journal.commit(lambda _conn: None)
            assert "second attempt 1" not in stage.lines()
            double.answer_time = True
            await double.drop(1001)
            assert (await double.result(second[0])).status == "succeeded"


async def test_unconfirmed_results_are_sent_again_to_a_relay_that_lost_them(tmp_path: Path) -> None:
    stage = _stage(tmp_path, units=1)
    async with relay(confirm=False) as double, agent(prepare(tmp_path, double.url), stage):
        orders = [double.line.upload(f"d{i}") for i in range(3)]
        await double.push(*orders)
        await double.until(lambda: len(double.results) == 3, "results")
        kept = dict(double.results)
        double.results.clear()  # a restored, older relay
        await double.drop(1001)
        await double.until(lambda: len(double.results) == 3, "results again")
    assert double.results == kept


async def test_a_confirmed_result_is_counted_and_another_journals_receipt_is_ignored(
    tmp_path: Path,
) -> None:
    stage = _stage(tmp_path, units=1)
    async with relay(confirm=False) as double, agent(prepare(tmp_path, double.url), stage) as app:
        order = double.line.upload()
        await double.push(order)
        result = await double.result(order[0])
        foreign = double.line.sweep(results_through=ResultsThrough(journal=b"x" * 16, n=1))
        await double.push(foreign)
        await double.result(foreign[0])
        assert app.orders.state.confirmed == 0
        ours = double.line.sweep(results_through=ResultsThrough(journal=result.journal, n=1))
        await double.push(ours)
        await double.result(ours[0])
        assert app.orders.state.confirmed == 1


async def test_going_away_is_honoured_and_a_lost_connection_comes_back(tmp_path: Path) -> None:
    async with relay() as double, agent(prepare(tmp_path, double.url), _stage(tmp_path)):
        await double.until(lambda: double.connected, "a connection")
        await double.go_away(0, 0)
        await double.drop(1001)
        await double.until(lambda: double.connections == 2 and double.connected, "back again")


async def test_progress_reaches_the_relay_while_the_job_runs(tmp_path: Path) -> None:
    async with relay() as double, agent(prepare(tmp_path, double.url), _stage(tmp_path)):
        order = double.line.upload()
        await double.push(order)
        await double.result(order[0])
        await double.until(lambda: len(double.events) >= 2, "events")
    numbers = [event.n for event in double.events]
    assert numbers == sorted(set(numbers))
