"""Parts of a check: all at once, in their order, each with its own time."""

import asyncio

import pytest

from appliance.doctor.base import Finding, passed
from appliance.doctor.together import together


async def test_parts_run_at_the_same_time_and_keep_their_order() -> None:
    second_ran = asyncio.Event()

    async def first() -> Finding:
        await second_ran.wait()
        return passed("first", "", "")

    async def second() -> Finding:
        second_ran.set()
        return passed("second", "", "")

    assert [finding.id for finding in await together([first(), second()])] == ["first", "second"]


async def test_a_part_that_breaks_ends_the_others() -> None:
    async def waits() -> Finding:
        await asyncio.Event().wait()
        return passed("never", "", "")

    async def breaks() -> Finding:
        raise ValueError

    with pytest.raises(ExceptionGroup) as caught:
        await together([waits(), breaks()])
    assert caught.group_contains(ValueError)
