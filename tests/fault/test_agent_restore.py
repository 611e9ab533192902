"""Restored journals, raised epochs and revoked keys: detected, locked, re-based; nothing runs twice."""

import asyncio
import shutil
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from agent.journal.store import FILE
from protocol.messages import Epoch, FinalMark, Manifest, Revocation
from protocol.signed import parse_envelope
from tests.support import protocol_world as w
from tests.support.agent_relay_double import Double, relay
from tests.support.agent_world import StepStage, agent, prepare

pytestmark = pytest.mark.fault


def _copy(state: Path, to: Path) -> None:
    to.mkdir()
    for file in state.glob(f"{FILE}*"):
        if file.suffix != ".reserve":
            shutil.copy(file, to / file.name)


def _restore(state: Path, saved: Path) -> None:
    for file in state.glob(f"{FILE}*"):
        file.unlink()
    for file in saved.iterdir():
        shutil.copy(file, state / file.name)


def _epoch(double: Double, *, final: tuple[FinalMark, ...] = ()) -> Epoch:
    """Answer the newest inventory: an order made for exactly that place."""
    place = double.inventories[-1]
    return Epoch(
        v=1,
        tenant=w.TENANT,
        appliance=w.APPLIANCE,
        from_=place.epoch,
        to=place.epoch + 1,
        have=place.have,
        head=place.head,
        final=final,
    )


async def test_an_older_journal_locks_itself_and_goes_on_in_a_new_life_after_an_epoch(
    tmp_path: Path,
) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    async with relay() as double:
        config = prepare(tmp_path, double.url)
        async with agent(config, stage):
            first = double.line.upload("first")
            await double.push(first)
            await double.result(first[0])
        _copy(config.state, tmp_path / "saved")
        async with agent(config, stage):
            second = double.line.upload("second")
            await double.push(second)
            await double.result(second[0])
        _restore(config.state, tmp_path / "saved")
        old_life = double.hellos[-1].journal
        done = stage.lines()
        async with agent(config, stage) as app:
            await double.until(lambda: double.inventories, "the inventory of a locked journal")
            assert app.orders.state.locked == "appliance.journal-behind"
            assert "appliance.journal-behind" in [nack.code for nack in double.nacks]
            assert not app.session.caught_up.is_set()
            digest = parse_envelope(second[1], limit=2**20).digest
            mark = FinalMark(id=second[0].id, digest=digest, status="succeeded")
            await double.send_epoch(_epoch(double, final=(mark,)))
            await double.until(lambda: double.acks[-1].epoch == 2, "ack of the epoch")
            assert app.orders.state.locked == ""
            third = double.line.upload("third")
            await double.push(third)
            result = await double.result(third[0])
    assert (result.status, result.epoch, result.n) == ("succeeded", 2, 1)
    assert result.journal != old_life
    assert stage.lines()[: len(done)] == done
    assert [line for line in stage.lines() if line.startswith("second")].count("second done") == 1


async def test_an_epoch_refuses_what_waits_and_lets_the_running_job_end(tmp_path: Path) -> None:
    release = asyncio.Event()
    began = asyncio.Event()

    async def gate(_unit: int) -> None:
        began.set()
        await release.wait()

    stage = StepStage(tmp_path / "effects", units=1, gate=gate)
    async with (
        relay() as double,
        agent(prepare(tmp_path, double.url, limits={"slots": 1}), stage) as app,
    ):
        running, waiting = double.line.upload("running"), double.line.upload("waiting")
        await double.push(running, waiting)
        await began.wait()
        state = app.orders.state
        order = Epoch(
            v=1, tenant=w.TENANT, appliance=w.APPLIANCE,
            from_=1, to=2, have=state.head.have, head=state.head.hash, final=(),
        )  # fmt: skip
        await double.send_epoch(order)
        refused = await double.result(waiting[0])
        release.set()
        ended = await double.result(running[0])
        await double.send_epoch(order)  # the same bytes again: the same answer
        await double.until(lambda: len(double.inventories) >= 2, "the inventory again")
    assert (refused.status, refused.code) == ("refused", "protocol.epoch-raised")
    assert ended.status == "succeeded"
    assert double.inventories[-1].epoch == 2


async def test_an_epoch_for_another_place_changes_nothing(tmp_path: Path) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    async with relay() as double, agent(prepare(tmp_path, double.url), stage) as app:
        await double.until(lambda: app.orders.trust.fresh, "signed time")
        order = Epoch(
            v=1, tenant=w.TENANT, appliance=w.APPLIANCE,
            from_=1, to=2, have=7, head=bytes(32), final=(),
        )  # fmt: skip
        await double.send_epoch(order)
        await double.until(lambda: double.inventories, "inventory")
        assert app.orders.state.head.epoch == 1
    assert double.nacks[-1].code == "protocol.epoch-cas"


def _revoking(running: Literal["stop", "finish"]) -> Manifest:
    rows = list(w.manifest().keys)
    revoked = Revocation(since=w.T0, running=running)
    rows[0] = msgspec.structs.replace(rows[0], revoked=revoked)
    fresh = w.manifest_key("command-2", w.key_of("command 2"), "command")
    return w.manifest(serial=2, keys=(*rows, fresh))


@pytest.mark.parametrize("running", ["stop", "finish"])
async def test_a_revoked_key_refuses_what_waits_and_stops_or_finishes_what_runs(
    tmp_path: Path, running: Literal["stop", "finish"]
) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def gate(_unit: int) -> None:
        began.set()
        await release.wait()

    stage = StepStage(tmp_path / "effects", units=1, gate=gate)
    async with relay() as double, agent(prepare(tmp_path, double.url, limits={"slots": 1}), stage):
        first, second = double.line.upload("first"), double.line.upload("second")
        await double.push(first, second)
        await began.wait()
        await double.send_manifest(_revoking(running))
        refused = await double.result(second[0])
        if running == "finish":
            release.set()
        ended = await double.result(first[0])
        release.set()
        head = double.line.head
        await double.push(double.line.upload("forged"))
        await double.until(lambda: double.nacks, "a nack of the revoked key's order")
        double.line.head = head
        double.queue.clear()
        await double.drop(1001)
        third = double.line.upload("third", sign_with=w.key_of("command 2"))
        double.queue[1, third[0].seq] = third[1]
        assert (await double.result(third[0])).status == "succeeded"
    assert (refused.status, refused.code) == ("refused", "protocol.key-revoked")
    expected = ("cancelled", "protocol.key-revoked") if running == "stop" else ("succeeded", None)
    assert (ended.status, ended.code) == expected
    assert double.nacks[-1].code == "protocol.key-revoked"


async def test_an_agent_behind_the_named_manifest_accepts_nothing_until_it_has_it(
    tmp_path: Path,
) -> None:
    stage = StepStage(tmp_path / "effects", units=1)
    async with (
        relay(manifest_serial=2) as double,
        agent(prepare(tmp_path, double.url), stage) as app,
    ):
        order = double.line.upload()
        await double.push(order)
        await double.until(lambda: app.orders.counts["protocol.manifest-stale"], "a held order")
        assert double.acks == []
        await double.send_manifest(w.manifest(serial=2))
        assert (await double.result(order[0])).status == "succeeded"
