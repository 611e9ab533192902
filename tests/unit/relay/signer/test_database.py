import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.signer.database import Database
from relay.signer.errors import BadConfig, Unavailable


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "signer.db")
    await database.open()
    await database.run(lambda conn: conn.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield database
    await database.close()


def _put(n: int) -> object:
    return lambda conn: conn.execute("INSERT INTO t VALUES (?)", (n,))


def _rows(conn: sqlite3.Connection) -> list[int]:
    return [row["n"] for row in conn.execute("SELECT n FROM t ORDER BY n")]


async def test_work_runs_in_the_order_in_which_it_was_submitted(database: Database) -> None:
    seen: list[int] = []
    futures = [database.submit(lambda _conn, n=n: seen.append(n)) for n in range(200)]
    for future in futures:
        await future
    assert seen == list(range(200))


async def test_work_that_fails_takes_nothing_of_its_neighbours_with_it(database: Database) -> None:
    def half(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO t VALUES (100)")
        conn.execute("INSERT INTO t VALUES (1)")  # there already

    futures = [database.submit(work) for work in (_put(1), half, _put(2))]  # type: ignore[arg-type]
    await futures[0]
    with pytest.raises(sqlite3.IntegrityError):
        await futures[1]
    await futures[2]
    assert await database.run(_rows) == [1, 2]


async def test_what_was_answered_is_on_disk(database: Database, tmp_path: Path) -> None:
    await database.run(_put(7))  # type: ignore[arg-type]
    other = sqlite3.connect(f"file:{tmp_path / 'signer.db'}?mode=ro", uri=True)
    assert other.execute("SELECT n FROM t").fetchall() == [(7,)]
    other.close()


async def test_what_was_queued_is_finished_before_the_end(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    await database.open()
    future = database.submit(lambda conn: conn.execute("CREATE TABLE t (n INTEGER)"))
    await database.close()
    await future
    with pytest.raises(Unavailable):
        await database.run(_rows)


async def test_the_file_is_closed_to_others(database: Database, tmp_path: Path) -> None:
    assert (tmp_path / "signer.db").stat().st_mode & 0o077 == 0


async def test_a_file_of_a_newer_release_is_not_opened(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "new.db")
    conn.execute("PRAGMA user_version = 99")
    conn.close()
    with pytest.raises(BadConfig, match="99"):
        await Database(tmp_path / "new.db").open()


async def test_a_cancelled_wait_does_not_undo_the_work(database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(database.run(_put(5)))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
    await database.run(lambda _conn: None)
    assert await database.run(_rows) in ([], [5])  # whole or not at all
