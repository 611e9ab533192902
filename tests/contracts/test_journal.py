"""The journal's contract: what is awaited is durable, what raised left nothing, secrets go, a line is inherited."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Cancelled
from agent.journal import inbox, jobs, leftovers, results
from agent.journal.errors import JournalInUse, JournalTooNew
from agent.journal.job import RECEIPTS_BATCH, CheckpointTooLarge, JobJournal
from agent.journal.jobs import Job
from agent.journal.results import Author, Ending
from agent.journal.state import (
    count,
    counters,
    get_value,
    limits_key,
    load_state,
    set_value,
    store_state,
)  # fmt: skip
from agent.journal.store import FILE, Journal
from agent.targets.base import Intent
from protocol.codec import encode
from protocol.errors import IllegalTransition
from protocol.ids import digest_of
from protocol.jobs import JobEvent, State
from protocol.messages import CommandRef
from tests.support import protocol_world as w

AUTHOR = Author(w.TENANT, w.APPLIANCE, w.DEVICE)
INTENT = Intent("test.disk", {"provider": "p", "account": "a", "region": "r"}, "disk")
MARK = b"sealed-secret-of-a-command"
SECRET = MARK * 1000
"""Longer than a page: what is freed must be overwritten, not only unlinked."""


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal(tmp_path, reserve=0)
    await opened.begin(w.record(), w.RECORD_PAYLOAD)
    yield opened
    opened.close()


async def add(journal: Journal, *, seq: int = 1, retry_of: CommandRef | None = None) -> Job:
    """Consume a command into inbox and jobs."""
    state = await journal.commit(load_state)
    assert state is not None
    command = w.command(w.HEAD_0, seq=seq, id=bytes([seq]) * 16, retry_of=retry_of)
    digest = digest_of(encode(command))
    head = type(w.HEAD_0)(1, seq, digest)

    def run(conn: sqlite3.Connection) -> Job:
        inbox.put(conn, head, digest=digest, command_id=command.id, envelope=SECRET)
        return jobs.insert(conn, command, digest=digest, kid=w.COMMAND.kid, now=5, joins=True)

    return await journal.commit(run)


async def begin(journal: Journal, job: Job) -> Job:
    return await journal.commit(lambda conn: jobs.begin(conn, job, now=7))


async def finish(journal: Journal, job: Job, event: JobEvent) -> Job:
    def run(conn: sqlite3.Connection) -> Job:
        state = load_state(conn)
        assert state is not None
        ended = jobs.move(conn, job, event)
        state = results.finish(conn, state, ended, author=AUTHOR, ending=Ending(), now=9)
        store_state(conn, state)
        journal.scrub()
        return ended

    return await journal.commit(run)


async def part(journal: Journal, job: Job) -> JobJournal:
    return await journal.job(job, now_ms=lambda: 11)


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.glob(f"{FILE}*")))


async def test_a_function_that_raises_takes_back_its_own_writes_only(journal: Journal) -> None:
    def broken(conn: sqlite3.Connection) -> None:
        set_value(conn, "mine", 1)
        raise KeyError("mine")

    first = journal.writer.submit(lambda conn: set_value(conn, "first", 1))
    second = journal.writer.submit(broken)
    third = journal.writer.submit(lambda conn: set_value(conn, "third", 1))
    await first
    with pytest.raises(KeyError):
        await second
    await third
    values = await journal.commit(lambda c: [get_value(c, k) for k in ("first", "mine", "third")])
    assert values == [1, None, 1]


async def test_a_cancelled_waiter_does_not_take_its_transaction_back(journal: Journal) -> None:
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(journal.commit(lambda conn: set_value(conn, "kept", 1)))
        await asyncio.sleep(0)
        waiter.cancel()
    assert await journal.commit(lambda conn: get_value(conn, "kept")) == 1


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    first = Journal(tmp_path, reserve=0)
    state = await first.begin(w.record(), w.RECORD_PAYLOAD)
    job = await begin(first, await add(first))
    own = await part(first, job)
    await own.record(INTENT)
    await own.created(INTENT, "id-1")
    own.add(0, 4, b"d" * 32)
    await own.flush()
    await own.checkpoint({"step": "transfer"})
    first.close()
    second = Journal(tmp_path, reserve=0)
    assert await second.begin(w.record(), w.RECORD_PAYLOAD) == state
    again = await part(second, job)
    assert again.known(INTENT) == "id-1"
    assert list(again.load()) == [(0, 4, b"d" * 32)]
    assert again.load_checkpoint() == {"step": "transfer"}
    assert [j.state for j in await second.commit(jobs.open_jobs)] == [State.RUNNING]
    second.close()


async def test_receipts_are_written_in_batches_and_the_last_of_an_offset_wins(
    journal: Journal,
) -> None:
    own = await part(journal, await begin(journal, await add(journal)))
    for number in range(RECEIPTS_BATCH - 1):
        own.add(number, 1, b"a")
    await journal.commit(lambda _conn: None)
    assert list(own.load()) == []
    own.add(0, 1, b"b")
    await journal.commit(lambda _conn: None)
    assert len(list(own.load())) == RECEIPTS_BATCH - 1
    assert next(iter(own.load())) == (0, 1, b"b")


async def test_receipts_become_durable_by_themselves(journal: Journal) -> None:
    own = await part(journal, await begin(journal, await add(journal)))
    own.add(0, 1, b"a")
    own.let_go()
    await journal.commit(lambda _conn: None)
    assert list(own.load()) == [(0, 1, b"a")]


async def test_a_checkpoint_and_a_receipt_end_the_crash_loop_count(journal: Journal) -> None:
    job = await begin(journal, await add(journal))
    own = await part(journal, job)
    await own.checkpoint({"a": 1})
    resumed = await journal.commit(lambda conn: jobs.resume(conn, job))
    assert (resumed.attempt, resumed.checkpoint_attempt) == (2, 0)
    stored = await journal.commit(lambda conn: jobs.get(conn, job.digest))
    assert stored is not None
    assert (stored.attempt, stored.checkpoint_attempt) == (2, 1)
    own.add(0, 1, b"a")
    await own.flush()
    stored = await journal.commit(lambda conn: jobs.get(conn, job.digest))
    assert stored is not None
    assert stored.checkpoint_attempt == 2


async def test_an_absurd_checkpoint_is_refused(journal: Journal) -> None:
    own = await part(journal, await begin(journal, await add(journal)))
    with pytest.raises(CheckpointTooLarge):
        await own.checkpoint({"x": bytes(70_000)})
    assert own.load_checkpoint() is None


async def test_a_cancel_before_the_point_of_no_return_wins_and_after_it_loses(
    journal: Journal,
) -> None:
    job = await begin(journal, await add(journal))
    own = await part(journal, job)
    await journal.commit(lambda conn: jobs.move(conn, job, JobEvent.CANCEL))
    with pytest.raises(Cancelled):
        await own.point_of_no_return()
    other = await begin(journal, await add(journal, seq=2))
    theirs = await part(journal, other)
    await theirs.point_of_no_return()
    await journal.commit(lambda conn: jobs.move(conn, other, JobEvent.CANCEL))
    await theirs.point_of_no_return()


async def test_a_final_commands_envelope_is_gone_from_every_file(
    journal: Journal, tmp_path: Path
) -> None:
    job = await begin(journal, await add(journal))
    assert MARK in on_disk(tmp_path)
    await finish(journal, job, JobEvent.SUCCEED)
    await journal.commit(lambda _conn: None)
    assert MARK not in on_disk(tmp_path)


async def test_results_are_numbered_without_gaps_and_only_confirmed_old_jobs_go(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "KEEP_CONFIRMED", 1)
    for seq in range(1, 4):
        await finish(journal, await begin(journal, await add(journal, seq=seq)), JobEvent.FAIL)
    state = await journal.commit(load_state)
    assert state is not None
    rows = await journal.commit(lambda conn: results.after(conn, state.journal, 0, 10))
    assert [n for n, _, _ in rows] == [1, 2, 3]
    ages = 40 * 24 * w.HOUR_MS
    await journal.commit(lambda conn: results.forget_old(conn, state, now=ages))
    assert len(await journal.commit(lambda conn: jobs.recent(conn, 10))) == 3
    told = replace(state, confirmed=3)
    await journal.commit(lambda conn: results.forget_old(conn, told, now=5))
    assert len(await journal.commit(lambda conn: jobs.recent(conn, 10))) == 3
    await journal.commit(lambda conn: results.forget_old(conn, told, now=ages))
    assert [job.seq for job in await journal.commit(lambda conn: jobs.recent(conn, 10))] == [3]
    rows = await journal.commit(lambda conn: results.after(conn, state.journal, 0, 10))
    assert [n for n, _, _ in rows] == [1, 2, 3]


async def test_a_forgotten_jobs_own_limits_go_with_it_and_no_other(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "KEEP_CONFIRMED", 1)
    keys = [limits_key(None)]
    for seq in (1, 2):
        job = await finish(
            journal, await begin(journal, await add(journal, seq=seq)), JobEvent.FAIL
        )
        keys.append(limits_key(job.id))

    def stored(conn: sqlite3.Connection) -> list[bool]:
        return [get_value(conn, key) is not None for key in keys]

    for key in keys:
        await journal.commit(lambda conn, key=key: set_value(conn, key, b"args"))
    state = await journal.commit(load_state)
    assert state is not None
    told, ages = replace(state, confirmed=2), 40 * 24 * w.HOUR_MS
    await journal.commit(lambda conn: results.forget_old(conn, told, now=5))
    assert await journal.commit(stored) == [True, True, True]
    await journal.commit(lambda conn: results.forget_old(conn, told, now=ages))
    assert await journal.commit(stored) == [True, False, True]


async def test_a_retry_inherits_its_line_and_a_success_drops_what_it_needs_no_more(
    journal: Journal,
) -> None:
    first = await begin(journal, await add(journal))
    own = await part(journal, first)
    await own.record(INTENT)
    await own.created(INTENT, "id-1")
    own.add(0, 4, b"d")
    await own.flush()
    failed = await finish(journal, first, JobEvent.FAIL)
    assert [left.name for left in await journal.commit(leftovers.find)] == ["disk"]
    retry = await begin(
        journal, await add(journal, seq=2, retry_of=CommandRef(id=failed.id, digest=failed.digest))
    )
    assert retry.origin == first.id
    assert await journal.commit(leftovers.find) == []
    theirs = await part(journal, retry)
    assert theirs.known(INTENT) == "id-1"
    assert [r[:2] for r in theirs.load()] == [(0, 4)]
    await finish(journal, retry, JobEvent.SUCCEED)
    assert list(theirs.load()) == []
    assert await journal.commit(leftovers.find) == []


async def test_intents_forget_what_was_removed_and_keep_their_order(journal: Journal) -> None:
    own = await part(journal, await begin(journal, await add(journal)))
    other = Intent("test.snapshot", INTENT.scope, "snap")
    for intent in (INTENT, other, INTENT):
        await own.record(intent)
    assert [(i.name, i.object_id) for i in own.intents()] == [("disk", ""), ("snap", "")]
    await own.removed(INTENT)
    assert own.known(INTENT) is None
    assert [i.name for i in own.intents()] == ["snap"]


async def test_illegal_moves_change_nothing(journal: Journal) -> None:
    job = await add(journal)
    with pytest.raises(IllegalTransition):
        await journal.commit(lambda conn: jobs.move(conn, job, JobEvent.SUCCEED))
    stored = await journal.commit(lambda conn: jobs.get(conn, job.digest))
    assert stored == job


async def test_counters_add_up(journal: Journal) -> None:
    await journal.commit(lambda conn: count(conn, {"a": 2, "b": 1}))
    await journal.commit(lambda conn: count(conn, {"a": 3}))
    assert await journal.commit(counters) == {"a": 5, "b": 1}


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_nobody_else_may_read_what_a_journal_writes(tmp_path: Path) -> None:
    old = tmp_path / FILE  # of a release that left it to the umask
    sqlite3.connect(old).close()
    old.chmod(0o644)
    before = os.umask(0)
    try:
        journal = Journal(tmp_path, reserve=4096)
        await journal.begin(w.record(), w.RECORD_PAYLOAD)
        modes = _modes(tmp_path)
        journal.close()
    finally:
        os.umask(before)
    assert set(modes) >= {FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}.reserve", "journal.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_second_agent_is_kept_out(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalInUse):
        Journal(tmp_path, reserve=0)


def test_a_journal_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as conn:
        conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(JournalTooNew):
        Journal(tmp_path, reserve=0)
