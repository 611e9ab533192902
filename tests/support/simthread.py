"""A simulator in a thread of its own, for tests that drive it by synchronous SDKs and by processes."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from appliance.sim.base import Simulator

S = TypeVar("S", bound=Simulator)

START_SECONDS = 60.0


@contextmanager
def running_sim(make: Callable[..., S], **options: Any) -> Iterator[S]:
    """Run a simulator while the block runs."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        try:
            async with make(**options) as sim:
                found.update(sim=sim, loop=asyncio.get_running_loop(), stop=asyncio.Event())
                started.set()
                await found["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(START_SECONDS)
    try:
        yield found["sim"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(START_SECONDS)
