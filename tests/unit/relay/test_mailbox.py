import asyncio

import pytest

from relay.mailbox import Mailbox


def test_number_and_bytes_are_bounded_but_one_message_always_fits() -> None:
    box = Mailbox(max_items=3, max_bytes=10)
    assert box.offer(b"x" * 50)
    assert not box.offer(b"y")
    assert box.take() == b"x" * 50
    assert [box.offer(b"z") for _ in range(4)] == [True, True, True, False]
    assert box.due.is_set()


def test_empty_box_is_false() -> None:
    box = Mailbox(1, 1)
    assert not box
    with pytest.raises(IndexError):
        box.take()


async def test_put_waits_for_room() -> None:
    box = Mailbox(1, 10)
    box.offer(b"first")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(box.put(b"second", seconds=60))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert box.take() == b"first"
    assert waiting.result()
    assert box.take() == b"second"


async def test_put_gives_up_when_there_is_no_room() -> None:
    box = Mailbox(1, 10)
    box.offer(b"first")
    assert not await box.put(b"second", seconds=0)
    assert box.take() == b"first"
    assert not box
