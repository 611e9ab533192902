"""SQLite under the relay: group commit, full disk, restart, kill -9, databases of other releases."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.errors import RelayError, SeqTaken, StoreError, StoreFull, StoreNewer
from relay.store.sqlite import SqliteStore, open_sqlite
from relay.store.sqlite_schema import MIGRATIONS, migrate
from relay.store.sqlite_writer import Database
from tests.support.relay_rows import JOURNAL, NOW, SITE, TENANT, command, result

pytestmark = pytest.mark.e2e


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = open_sqlite(tmp_path / "relay.db", now=NOW)
    yield made
    await made.close()


async def add(store: SqliteStore, item) -> str:
    try:
        return await store.add_command(item, actor="portal", answer=None, now=NOW)
    except RelayError as err:
        return err.code


async def test_callers_that_come_together_share_a_commit(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    commit = Database._commit
    monkeypatch.setattr(
        Database,
        "_commit",
        lambda self, conn, group: (groups.append(len(group)), commit(self, conn, group)),
    )
    async with asyncio.TaskGroup() as group:
        added = [group.create_task(add(store, command(seq))) for seq in range(1, 101)]
    assert {task.result() for task in added} == {"new"}
    assert sum(groups) == 100
    assert len(groups) < 100


async def test_refusal_in_a_group_undoes_itself_alone(store: SqliteStore) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(add(store, item))
            for item in (command(1), command(1, salt="other"), command(2), command(2), command(3))
        ]
    assert [task.result() for task in tasks] == ["new", SeqTaken.code, "new", "same", "new"]
    assert len(await store.audit(TENANT, after=0, limit=10)) == 3


@pytest.mark.parametrize("company", [0, 3], ids=["alone", "in-a-group"])
async def test_work_that_fails_half_way_leaves_nothing(store: SqliteStore, company: int) -> None:
    def half(_conn: sqlite3.Connection) -> None:
        store._led.note(TENANT, "x", "half", "", "", NOW)
        raise StoreError("on purpose")

    async def fail() -> None:
        with pytest.raises(StoreError, match="on purpose"):
            await store._db.write(half)

    async with asyncio.TaskGroup() as group:
        for seq in range(1, company + 1):
            group.create_task(add(store, command(seq)))
        group.create_task(fail())
    log = await store.audit(TENANT, after=0, limit=10)
    assert [entry.action for entry in log] == ["command.stored"] * company
    assert await add(store, command(9)) == "new"


async def test_full_disk_is_named_keeps_nothing_half_and_heals(store: SqliteStore) -> None:
    await add(store, command(1))
    before = (
        await store.jobs(TENANT, before=0, limit=9),
        await store.audit(TENANT, after=0, limit=9),
    )

    def limit(conn: sqlite3.Connection, pages: int) -> None:
        conn.execute(f"PRAGMA max_page_count = {pages}")

    (pages,) = await store._db.read(lambda conn: conn.execute("PRAGMA page_count").fetchone())
    await store._db.write(lambda conn: limit(conn, pages + 2))
    with pytest.raises(StoreFull) as caught:
        await store.add_command(command(2, env=b"x" * 200_000), actor="p", answer=None, now=NOW)
    assert (caught.value.http_status, caught.value.retryable) == (507, True)
    after = (
        await store.jobs(TENANT, before=0, limit=9),
        await store.audit(TENANT, after=0, limit=9),
    )
    assert after == before
    await store._db.write(lambda conn: limit(conn, 10**6))
    assert await add(store, command(2, env=b"x" * 200_000)) == "new"


async def test_restart_keeps_everything_but_connections(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    first = open_sqlite(path, now=NOW)
    await add(first, command(1))
    await first.open_link(TENANT, SITE, epoch=1, have=1, journal=JOURNAL, confirmed=0, now=NOW)
    await first.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    events = await first.events(TENANT, after=0, limit=99)
    await first.close()
    await first.close()
    second = open_sqlite(path, now=NOW - 10_000)  # and a clock that went back
    try:
        assert await second.events(TENANT, after=0, limit=99) == events
        view = await second.appliance(TENANT, SITE)
        assert view is not None
        assert (view.connected, view.generation, view.through) == (False, 1, 1)
        await second.add_command(command(2), actor="p", answer=None, now=NOW - 10_000)
        assert (await second.events(TENANT, after=events[-1].id, limit=9))[0].job == command(2).id
    finally:
        await second.close()


async def test_closed_store_says_so(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "relay.db", now=NOW)
    await store.close()
    with pytest.raises(StoreError):
        await store.jobs(TENANT, before=0, limit=1)
    with pytest.raises(StoreError):
        await add_raw(store)


async def add_raw(store: SqliteStore) -> None:
    await store.add_command(command(1), actor="p", answer=None, now=NOW)


def test_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    conn = sqlite3.connect(path, isolation_level=None)
    migrate(conn, now=NOW)
    conn.execute("INSERT INTO migration VALUES (?, 0)", (len(MIGRATIONS) + 1,))
    conn.close()
    with pytest.raises(StoreNewer):
        open_sqlite(path, now=NOW)


@pytest.mark.parametrize("content", [b"not a database at all, but text" * 100])
def test_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"relay\.db"):
        open_sqlite(path, now=NOW)


ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import asyncio, sys
from pathlib import Path
from relay.store.sqlite import open_sqlite
from tests.support.relay_rows import NOW, command

async def main():
    store = open_sqlite(Path(sys.argv[1]), now=NOW)
    for seq in range(1, 10_000):
        await store.add_command(command(seq, epoch=seq), actor="p", answer=None, now=NOW)
        print(seq, flush=True)

asyncio.run(main())
"""


def write_and_kill(path: Path) -> list[int]:
    """Run WRITER until it reported 50 commands, kill it, return all that it reported."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
        return reported + [int(line) for line in process.stdout.read().split()]


@pytest.mark.fault
async def test_what_was_reported_survives_kill_9(tmp_path: Path) -> None:
    reported = write_and_kill(tmp_path / "relay.db")
    store = open_sqlite(tmp_path / "relay.db", now=NOW)
    try:
        kept = {job.seq for job in await store.jobs(TENANT, before=0, limit=20_000)}
        assert set(reported) <= kept
        log = await store.audit(TENANT, after=0, limit=20_000)
        assert [entry.n for entry in log] == list(range(1, len(kept) + 1))
    finally:
        await store.close()
