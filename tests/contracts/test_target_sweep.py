"""What a job left in a cloud goes with the credential of the same place, and with no other; asked of every target."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.journal.leftovers import Leftover
from agent.stages.plugins import make_target
from agent.stages.services import Services
from agent.stages.sweep import DRY, NEEDS_CREDENTIAL, REMOVED, Sweeper
from agent.stages.upload import UploadStage
from appliance.sim.faults import Fault
from tests.support.job_store import MemoryJobStore
from tests.support.rigs import CLOUDS, Rig, running


@pytest.fixture(params=CLOUDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(request.param, tmp_path) as rig:
        yield rig


class Left:
    """The leftovers of one line of jobs, as the journal would tell them."""

    def __init__(self, rig: Rig, store: MemoryJobStore) -> None:
        self.origin = rig.job().origin
        self.rows = [
            Leftover(self.origin, i.kind, i.scope, i.name, i.object_id, 0) for i in store.intents()
        ]

    async def leftovers(self) -> list[Leftover]:
        return list(self.rows)

    async def mark_removed(self, leftover: Leftover) -> None:
        self.rows.remove(leftover)


async def sweep(rig: Rig, left: Left, *, apply: bool, **job_options: object) -> list[str]:
    job = rig.job(**job_options)
    services = Services(left.leftovers, left.mark_removed)
    connected = make_target(job.args.target, job)
    sweeper = Sweeper(services, job.config, job.tag_key, job.appliance, connected)
    try:
        return [row["outcome"] for row in await sweeper.sweep(apply=apply)]
    finally:
        await connected.close()


async def test_what_an_ended_job_left_is_listed_then_removed(rig: Rig) -> None:
    store = MemoryJobStore()
    await UploadStage().run(rig.job(store=store))
    left, there = Left(rig, store), rig.left()
    count = len(left.rows)
    assert await sweep(rig, left, apply=False) == [DRY] * count
    assert rig.left() == there
    assert await sweep(rig, left, apply=True) == [REMOVED] * count
    assert rig.left() == []
    assert left.rows == []


async def test_what_a_failed_job_left_is_removed(rig: Rig) -> None:
    store = MemoryJobStore()
    rig.faults(Fault(action="status", op=rig.write, status=403, code="AccessDenied"))
    with pytest.raises(AgentError):
        await UploadStage().run(rig.job(store=store))
    rig.faults()
    left = Left(rig, store)
    assert left.rows
    assert set(await sweep(rig, left, apply=True)) == {REMOVED}
    assert rig.left() == []


async def test_another_place_is_not_asked(rig: Rig) -> None:
    store = MemoryJobStore()
    await UploadStage().run(rig.job(store=store))
    left, there = Left(rig, store), rig.left()
    for row in left.rows:
        row.scope["account"] += "-other"
    assert set(await sweep(rig, left, apply=True)) == {NEEDS_CREDENTIAL}
    assert rig.left() == there


async def test_another_lines_object_stays(rig: Rig) -> None:
    store = MemoryJobStore()
    await UploadStage().run(rig.job(store=store))
    left, there = Left(rig, store), rig.left()
    left.rows = [Leftover("cd" * 16, r.kind, r.scope, r.name, r.object_id, 0) for r in left.rows]
    outcomes = await sweep(rig, left, apply=True)
    assert rig.left() == there
    assert any("owner tag" in outcome or "labels" in outcome for outcome in outcomes), outcomes


async def test_a_refused_credential_is_said_row_by_row(rig: Rig) -> None:
    store = MemoryJobStore()
    await UploadStage().run(rig.job(store=store))
    left, there = Left(rig, store), rig.left()
    outcomes = await sweep(rig, left, apply=True, credential=rig.wrong_credential())
    assert all(one.startswith("target.") for one in outcomes), outcomes
    assert rig.left() == there


async def test_what_was_ordered_again_meanwhile_stays(rig: Rig) -> None:
    store = MemoryJobStore()
    await UploadStage().run(rig.job(store=store))
    left, there = Left(rig, store), rig.left()
    asked: list[int] = []

    async def leftovers() -> list[Leftover]:
        asked.append(1)
        return list(left.rows) if len(asked) == 1 else []

    left.leftovers = leftovers
    assert await sweep(rig, left, apply=True) == []
    assert rig.left() == there
