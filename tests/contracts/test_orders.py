"""Orders on a real journal: what became durable has its effects, whoever waited for it is still there or not."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.acceptance import Effects
from agent.config import parse
from agent.journal.results import Author
from agent.journal.store import Journal
from agent.orders import Orders, load_orders
from agent.trust import Clocks, Trust
from protocol.clock import SignedClock
from protocol.errors import ManifestRollback, TimeRejected, WrongAudience
from protocol.messages import Kind
from protocol.signed import sign
from tests.support import protocol_world as w
from tests.support.agent_relay_double import Line

CLOCKS = Clocks(boot=lambda: 1.0, wall=lambda: 1.0, mono=lambda: 1.0)


@dataclass
class World:
    """Orders, and what they told their listener."""

    journal: Journal
    heard: list[Effects] = field(default_factory=list)
    orders: Orders = field(init=False)

    async def open(self) -> "World":
        state = await self.journal.begin(w.record(), w.RECORD_PAYLOAD)
        trust = Trust(w.ring(), SignedClock(), CLOCKS, accept_unproven=False)
        self.orders = await load_orders(
            self.journal,
            state,
            trust=trust,
            author=Author(w.TENANT, w.APPLIANCE, w.DEVICE),
            config=parse({}),
            listener=self.heard.append,
        )
        return self

    async def prove(self) -> None:
        """Let a signed time come."""
        self.orders.trust.clock.ask(b"N" * 16, boot_s=1.0)
        await self.orders.time(sign(Kind.TIME, w.signed_time(), w.TIME))
        self.orders.trust.fresh = True


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    journal = Journal(tmp_path, reserve=0)
    yield await World(journal).open()
    journal.close()


async def test_effects_follow_even_if_the_session_died_during_the_commit(world: World) -> None:
    await world.prove()
    release = threading.Event()

    def busy(_conn: sqlite3.Connection) -> None:
        release.wait(30)

    blocked = world.journal.writer.submit(busy)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(world.orders.commands([Line().sweep()[1]]))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0)
        release.set()
    await blocked
    await world.journal.commit(lambda _conn: None)
    assert waiter.cancelled()
    assert [effects.queued for effects in world.heard] == [True]
    assert world.orders.state.head.have == 1


async def test_later_orders_of_a_batch_see_what_earlier_ones_changed(world: World) -> None:
    await world.prove()
    line = Line()
    order = line.sweep()
    effects = await world.orders.commands([order[1], line.cancel(*order)[1], order[1]])
    assert (effects.ack, effects.results, effects.stop) == (True, True, [])
    assert effects.state.head.have == 2
    assert effects.state.results_last == 2
    assert effects.counts == {"accepted": 2, "protocol.duplicate": 1}


async def test_without_signed_time_orders_are_held_and_consume_nothing(world: World) -> None:
    effects = await world.orders.commands([Line().sweep()[1]])
    assert (effects.hold, effects.ack) == ("protocol.time-unproven", False)
    assert world.orders.state.head.have == 0


async def test_an_expired_order_is_consumed_and_refused(world: World) -> None:
    await world.prove()
    effects = await world.orders.commands([Line().sweep(exp=w.T0 + 1)[1]])
    assert effects.state.head.have == 1
    assert effects.counts == {"protocol.expired": 1}
    [(_, _, report)] = await world.orders.results_after(0)
    assert b"protocol.expired" in report


async def test_a_gap_asks_for_what_is_missing(world: World) -> None:
    await world.prove()
    line = Line()
    line.sweep()
    effects = await world.orders.commands([line.sweep()[1]])
    assert (effects.fetch, effects.ack) == (1, False)


async def test_the_floor_and_the_ratchet_survive_a_restart(world: World) -> None:
    await world.prove()
    again = await World(world.journal).open()
    assert again.orders.trust.clock.floor == w.T0 + w.HOUR_MS
    assert again.orders.link == b"L" * 16


async def test_a_time_that_was_not_asked_for_does_not_count(world: World) -> None:
    with pytest.raises(TimeRejected):
        await world.orders.time(sign(Kind.TIME, w.signed_time(), w.TIME))
    with pytest.raises(WrongAudience):
        await world.orders.time(sign(Kind.TIME, w.signed_time(appliance="site-2"), w.TIME))


async def test_a_newer_manifest_is_kept_and_an_older_one_refused(world: World) -> None:
    newer = sign(Kind.MANIFEST, w.manifest(serial=5, floor=w.T0), w.ROOT)
    assert await world.orders.manifest(newer)
    assert not await world.orders.manifest(newer)
    with pytest.raises(ManifestRollback):
        await world.orders.manifest(sign(Kind.MANIFEST, w.manifest(serial=4), w.ROOT))
    again = await World(world.journal).open()
    assert again.orders.trust.ring.manifest.serial == 5
    assert again.orders.trust.clock.floor == w.T0


async def test_a_record_of_another_appliance_is_refused(world: World) -> None:
    other = w.record(device_key=w.OTHER_DEVICE.public, serial=2)
    with pytest.raises(WrongAudience):
        await world.orders.record(sign(Kind.RECORD, other, w.RECORD))
    mine = sign(Kind.RECORD, w.record(serial=2), w.RECORD)
    assert [await world.orders.record(mine), await world.orders.record(mine)] == [True, False]


async def test_the_queue_is_bounded_and_a_cancel_still_gets_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.acceptance.MAX_UNSTARTED", 2)
    await world.prove()
    line = Line()
    orders = [line.sweep() for _ in range(3)]
    effects = await world.orders.commands([envelope for _, envelope in orders])
    assert effects.counts == {"accepted": 2, "appliance.queue-full": 1}
    cancel = await world.orders.commands([line.cancel(*orders[0])[1]])
    assert cancel.counts == {"accepted": 1}
    assert (await world.orders.inventory())[0].state == "accepted"
