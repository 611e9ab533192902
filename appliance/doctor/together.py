"""Runs the parts of one check at the same time and times each: a dead endpoint must not use up the others' time."""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from appliance.doctor.base import Finding


async def together(parts: Iterable[Coroutine[Any, Any, Finding]]) -> list[Finding]:
    """Return the parts' findings, in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_timed(part)) for part in parts]
    return [task.result() for task in tasks]


async def _timed(part: Coroutine[Any, Any, Finding]) -> Finding:
    began = time.monotonic()
    return (await part).took(time.monotonic() - began)
