"""Every accident at every step of a command's life, one by one (PROTOCOL 8): what must hold, holds.

The steps are those between two durable writes of signer, relay and agent. After the accident everybody is up and
honest, and the system must come to rest by itself, with the command's end known at the signer.
"""

from collections.abc import Callable

import pytest

from protocol.inbox import JOURNAL_BEHIND
from tests.support import protocol_world as w
from tests.support.protocol_model import World

STEPS: tuple[tuple[str, Callable[[World], object]], ...] = (
    ("signer: commit", lambda o: o.signer.submit()),
    ("signer: push", lambda o: o.signer.push()),
    ("agent: connect", lambda o: o.connect()),
    ("relay: hello handed on", lambda o: o.forward()),
    ("agent: signed time", lambda o: o.take_time()),
    ("agent: inbox", lambda o: o.take_orders()),
    ("agent: ack", lambda o: o.agent.flush()),
    ("relay: ack handed on", lambda o: o.forward()),
    ("agent: start", lambda o: o.agent.start_next()),
    ("agent: effect", lambda o: o.agent.effect()),
    ("agent: checkpoint", lambda o: o.agent.checkpoint()),
    ("agent: final", lambda o: o.agent.finish()),
    ("agent: result sent", lambda o: o.agent.send_results(o.signer.rows.line.results)),
    ("signer: result verified", lambda o: o.forward()),
    ("signer: receipt", lambda o: o.signer.send_receipt()),
)
ACCIDENTS: dict[str, Callable[[World], object]] = {
    "nothing": lambda _: None,
    "agent crash": lambda o: o.agent.crash(),
    "signer crash": lambda o: o.signer.crash(),
    "everybody crashes": lambda o: (o.agent.crash(), o.signer.crash(), o.fresh.clear()),
    "relay loses what was on its way": lambda o: o.fresh.clear(),
    "relay restored": lambda o: o.restore("relay"),
    "signer restored": lambda o: o.restore("signer"),
    "journal restored": lambda o: o.restore("agent"),
    "signer and relay restored": lambda o: (o.restore("signer"), o.restore("relay")),
    "journal and relay restored": lambda o: (o.restore("agent"), o.restore("relay")),
    "all three restored": lambda o: [o.restore(who) for who in ("agent", "signer", "relay")],
    "key revoked": lambda o: o.signer.revoke_key(),
    "clock a day ahead": lambda o: setattr(o.signer, "now_ms", w.T0 + 25 * w.HOUR_MS),
    "clock a day back": lambda o: setattr(o.signer, "now_ms", w.T0 - 23 * w.HOUR_MS),
}


def _world(backup_at: int) -> World:
    """A world with a history; each database was copied in its middle."""
    world = World()
    for n in range(3):
        if n == backup_at:
            for whom in ("agent", "signer", "relay"):
                world.backup(whom)
        world.signer.submit()
        world.settle()
    return world


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
@pytest.mark.parametrize("after", range(len(STEPS)), ids=[name for name, _ in STEPS])
def test_one_accident_anywhere_loses_and_doubles_nothing(
    after: int, accident: Callable[[World], object]
) -> None:
    world = _world(backup_at=1)
    for _, step in STEPS[: after + 1]:
        step(world)
        world.check()
    accident(world)
    for _, step in STEPS[after + 1 :]:
        step(world)
        world.check()
    world.settle()
    world.check()
    world.check_settled()


@pytest.mark.parametrize("first", ACCIDENTS.values(), ids=ACCIDENTS)
@pytest.mark.parametrize("second", ACCIDENTS.values(), ids=ACCIDENTS)
def test_two_accidents_in_a_row_lose_and_double_nothing(
    first: Callable[[World], object], second: Callable[[World], object]
) -> None:
    world = _world(backup_at=0)
    for index, (_, step) in enumerate(STEPS):
        step(world)
        if index == 6:
            first(world)
        if index == 11:
            second(world)
        world.check()
    world.settle()
    world.check()
    world.check_settled()


# --- what each restore looks like to those who notice it


def test_a_restored_journal_runs_nothing_until_it_was_re_based() -> None:
    world = _world(backup_at=1)
    world.restore("agent")
    done = dict(world.effects.ran)
    world.connect()
    world.forward()
    world.take_time()
    assert world.agent.rows.state.locked == JOURNAL_BEHIND
    world.take_orders()
    world.run_jobs()
    assert world.effects.ran == done
    world.settle()
    assert world.effects.ran == done
    assert world.agent.rows.state.head.epoch == 2


def test_a_journal_that_lacks_only_results_is_noticed_too() -> None:
    world = World()
    world.signer.submit()
    for _, step in STEPS[1:8]:
        step(world)
    world.backup("agent")
    world.settle()
    world.restore("agent")
    done = dict(world.effects.ran)
    world.settle()
    assert world.effects.ran == done, "the signer had verified the result: nothing runs again"


def test_a_restored_signer_signs_nothing_before_it_heard_the_appliance() -> None:
    world = _world(backup_at=1)
    world.restore("signer")
    assert world.signer.submit() is None
    world.settle()
    assert world.signer.rows.line.head.epoch == 2
    assert world.signer.submit() is not None
    world.settle()


def test_a_restored_relay_is_refilled_without_an_epoch() -> None:
    world = _world(backup_at=0)
    world.signer.submit()
    world.signer.push()
    world.restore("relay")
    world.settle()
    assert world.signer.rows.line.head.epoch == 1
    assert not world.signer.open_orders


def test_commands_of_a_revoked_key_are_signed_again_by_the_next_one() -> None:
    world = _world(backup_at=0)
    order = world.signer.submit()
    world.signer.push()
    world.signer.revoke_key()
    world.settle()
    assert order is not None
    assert world.signer.rows.orders[order].ended == "succeeded"
    assert len(world.signer.rows.orders[order].copies) == 2


def test_a_replayed_epoch_order_and_its_commands_run_nothing_again() -> None:
    world = _world(backup_at=1)
    world.restore("signer")
    world.settle()
    world.signer.submit()
    world.settle()
    world.backup("signer")
    world.signer.submit()
    world.settle()
    world.restore("signer")
    world.settle()
    assert world.agent.rows.state.head.epoch == 3
    world.signer.submit()
    world.settle()
    ran = dict(world.effects.ran)
    head = world.agent.rows.state.head
    world.connect()
    world.take_time()
    for kind, data in [*world.to_agent, *world.to_agent]:
        world.agent.take(kind, data)
        world.run_jobs()
        world.check()
    assert (world.effects.ran, world.agent.rows.state.head) == (ran, head)
    world.settle()


def test_a_late_hello_raises_no_epoch() -> None:
    world = _world(backup_at=0)
    hellos = [row for row in world.to_signer if row[0] is w.Kind.HELLO]
    for kind, data in hellos:
        world.signer.take(kind, data)
    world.settle()
    world.signer.submit()
    world.settle()
    assert world.signer.rows.line.head.epoch == 1


def test_a_held_command_is_taken_once_the_time_comes() -> None:
    world = World()
    world.signer.submit()
    world.signer.push()
    world.connect()
    world.forward()
    world.take_orders()
    assert world.agent.rows.state.head.have == 0
    world.take_time()
    world.take_orders()
    assert world.agent.rows.state.head.have == 1


def test_what_never_arrived_is_signed_again_though_two_orders_were_raised() -> None:
    world = World()
    world.signer.submit()
    world.settle()
    world.restore("agent")
    waiting = world.signer.submit()
    world.connect()
    world.forward()
    world.take_time()
    world.agent.flush()
    world.forward()
    assert world.store.epoch is not None
    world.agent.take(w.Kind.EPOCH, world.store.epoch)
    late_ack = next(data for kind, data in world.to_signer if kind is w.Kind.ACK)
    world.signer.take(w.Kind.ACK, late_ack)
    world.settle()
    assert world.agent.rows.state.head.epoch > 2
    assert waiting is not None
    assert world.signer.rows.orders[waiting].ended == "succeeded"
