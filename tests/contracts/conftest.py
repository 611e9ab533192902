"""The relay's stores, each as the fixture `store`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store.base import Store
from relay.store.memory import MemoryStore
from relay.store.sqlite import open_sqlite
from tests.support.relay_rows import NOW


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = (
        MemoryStore() if request.param == "memory" else open_sqlite(tmp_path / "relay.db", now=NOW)
    )
    yield made
    await made.close()
