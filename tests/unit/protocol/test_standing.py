"""Where an appliance stands: every row of the table, for hello, ack, nack and inventory."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from protocol.acceptor import Head
from protocol.inbox import JOURNAL_BEHIND
from protocol.issuer import Line, raise_epoch
from protocol.messages import Ack, FinalMark, Hello, Inventory, InventoryItem, Nack
from protocol.standing import (
    SIGNER_BEHIND,
    SIGNER_FORK,
    OpenCommand,
    Step,
    on_ack,
    on_hello,
    on_inventory,
    on_nack,
)
from tests.support import protocol_world as w

CHAIN = {n: bytes([n]) * 32 for n in range(8)}
LINE = Line(
    w.TENANT,
    w.APPLIANCE,
    Head(1, 7, CHAIN[7]),
    seen=(1, 5),
    journal=b"J" * 16,
    results=3,
    receipted=3,
)


def _hello(have: int = 5, **changes: Any) -> Hello:
    head = CHAIN.get(have, b"?" * 32)
    base = w.hello(have=have, head=head, results_last=3, confirmed=3)
    return msgspec.structs.replace(base, **changes)


def _ack(have: int, epoch: int = 1, head: bytes | None = None) -> Ack:
    return Ack(epoch=epoch, have=have, head=head or CHAIN.get(have, b"?" * 32))


def _inventory(have: int, *, epoch: int = 1, **changes: Any) -> Inventory:
    base = Inventory(
        epoch=epoch,
        have=have,
        head=CHAIN.get(have, b"?" * 32),
        journal=b"J" * 16,
        commands=(),
    )
    return msgspec.structs.replace(base, **changes)


def _offered(line: Line = LINE, have: int = 5) -> Line:
    return raise_epoch(line, Head(1, have, CHAIN[have]), [])[2]


def test_a_place_in_our_chain_is_in_step_and_names_what_to_refill() -> None:
    found = on_hello(LINE, _hello(6), CHAIN.get)
    assert (found.step, found.refill_from, found.line.seen) == (Step.IN_STEP, 7, (1, 6))
    assert found.line.blocked == ""


@pytest.mark.parametrize("have", [5, 7])
def test_an_ack_moves_what_was_seen(have: int) -> None:
    found = on_ack(LINE, _ack(have), CHAIN.get)
    assert (found.step, found.line.seen) == (Step.IN_STEP, (1, have))


def test_an_older_ack_says_nothing() -> None:
    found = on_ack(LINE, _ack(2), CHAIN.get)
    assert (found.step, found.line) == (Step.IN_STEP, LINE)


@pytest.mark.parametrize(
    ("have", "changes", "code"),
    [
        (8, {}, SIGNER_BEHIND),
        (0, {"epoch": 2}, SIGNER_BEHIND),
        (6, {"head": b"x" * 32}, SIGNER_FORK),
    ],
    ids=["number", "epoch", "head"],
)
def test_a_hello_beyond_our_history_needs_an_epoch(
    have: int, changes: dict[str, Any], code: str
) -> None:
    found = on_hello(LINE, _hello(have, **changes), CHAIN.get)
    assert (found.step, found.code, found.line.blocked) == (Step.REBASE, code, code)
    assert found.stated.have == have


def test_an_ack_beyond_our_history_needs_an_epoch() -> None:
    assert on_ack(LINE, _ack(9), CHAIN.get).code == SIGNER_BEHIND
    assert on_ack(LINE, _ack(6, head=b"x" * 32), CHAIN.get).code == SIGNER_FORK
    assert on_ack(LINE, _ack(2, head=b"x" * 32), CHAIN.get).code == SIGNER_FORK


@pytest.mark.parametrize(
    "hello",
    [_hello(4), _hello(5, results_last=2), _hello(5, journal=b"K" * 16)],
    ids=["commands", "results", "journal"],
)
def test_a_hello_that_lacks_something_is_only_suspect(hello: Hello) -> None:
    found = on_hello(LINE, hello, CHAIN.get)
    assert (found.step, found.code) == (Step.SUSPECT, JOURNAL_BEHIND)
    assert found.line.blocked == JOURNAL_BEHIND


def test_a_late_hello_is_forgiven_by_the_next_ack() -> None:
    suspect = on_hello(LINE, _hello(4), CHAIN.get).line
    assert on_ack(suspect, _ack(5), CHAIN.get).line.blocked == ""


def test_the_hello_of_a_lasting_session_is_not_judged_twice() -> None:
    first = on_hello(LINE, _hello(5), CHAIN.get).line
    later = on_ack(first, _ack(7), CHAIN.get).line
    later = replace(later, results=9, checked=False)
    again = on_hello(later, _hello(5), CHAIN.get)
    assert (again.step, again.refill_from, again.line.blocked) == (Step.IN_STEP, 8, "")


def test_an_inventory_turns_suspicion_into_an_epoch() -> None:
    suspect = on_hello(LINE, _hello(4), CHAIN.get).line
    found = on_inventory(suspect, _inventory(4), [], CHAIN.get).assessment
    assert (found.step, found.code) == (Step.REBASE, JOURNAL_BEHIND)


def test_a_locked_journal_is_believed_though_nothing_looks_wrong() -> None:
    nack = Nack(epoch=1, have=5, digest=CHAIN[5], code=JOURNAL_BEHIND)
    told = on_nack(LINE, nack, CHAIN.get, is_ours=False)
    assert told.step is Step.SUSPECT
    found = on_inventory(told.line, _inventory(5), [], CHAIN.get).assessment
    assert found.step is Step.REBASE


def test_locks_of_our_own_are_not_opened_by_an_older_statement() -> None:
    locked = on_hello(LINE, _hello(9), CHAIN.get).line
    assert on_ack(locked, _ack(6), CHAIN.get).line.blocked == SIGNER_BEHIND


def test_a_new_appliance_may_begin_with_another_journal() -> None:
    fresh = replace(LINE, seen=(1, 0), journal=b"X" * 16, results=0, receipted=0)
    found = on_hello(fresh, _hello(0, results_last=0), CHAIN.get)
    assert (found.step, found.line.journal) == (Step.IN_STEP, b"J" * 16)


def test_a_restored_signer_adopts_the_journal_that_it_hears_of() -> None:
    blank = replace(LINE, journal=b"", results=0, receipted=0)
    assert on_hello(blank, _hello(5), CHAIN.get).line.journal == b"J" * 16


def test_a_receipt_that_never_arrived_is_due_again() -> None:
    assert on_hello(LINE, _hello(5, confirmed=1), CHAIN.get).line.receipted == 1


# --- nacks


def test_a_command_of_ours_that_can_never_be_consumed_needs_an_epoch() -> None:
    nack = Nack(epoch=1, have=5, digest=b"o" * 32, code="protocol.key-revoked")
    found = on_nack(LINE, nack, CHAIN.get, is_ours=True)
    assert (found.step, found.code) == (Step.REBASE, "protocol.key-revoked")
    assert found.stated == Head(1, 5, CHAIN[5])


@pytest.mark.parametrize(
    ("nack", "ours"),
    [
        (Nack(epoch=1, have=5, digest=b"x" * 32, code="protocol.fork"), False),
        (Nack(epoch=1, have=5, digest=b"o" * 32, code="protocol.epoch-ahead"), True),
        (Nack(epoch=1, have=3, digest=b"o" * 32, code="protocol.fork"), True),
        (Nack(epoch=0, have=5, digest=b"o" * 32, code="protocol.fork"), False),
    ],
    ids=["not ours", "passing", "late", "other epoch"],
)
def test_other_nacks_change_nothing(nack: Nack, ours: bool) -> None:
    found = on_nack(LINE, nack, CHAIN.get, is_ours=ours)
    assert (found.step, found.line) == (Step.IN_STEP, LINE)


# --- epoch


def test_an_order_that_was_not_taken_is_pushed_again() -> None:
    found = on_hello(_offered(), _hello(5), CHAIN.get)
    assert found.step is Step.OFFERED
    assert found.line.blocked == "signer.inventory-wanted"


def test_an_appliance_that_moved_on_gets_another_order() -> None:
    found = on_hello(_offered(), _hello(6), CHAIN.get)
    assert (found.step, found.code) == (Step.REBASE, "protocol.epoch-cas")


def _taken(line: Line) -> dict[int, bytes]:
    return {0: line.head.hash}


def test_an_inventory_of_before_says_nothing_about_now() -> None:
    found = on_inventory(LINE, _inventory(0), [], CHAIN.get).assessment
    assert (found.step, found.line) == (Step.IN_STEP, LINE)


def test_nothing_is_signed_before_the_inventory() -> None:
    line = _offered()
    found = on_ack(line, _ack(0, epoch=2, head=line.head.hash), _taken(line).get)
    assert (found.step, found.line.blocked) == (Step.TAKEN, "signer.inventory-wanted")


OPEN = [
    OpenCommand(b"a" * 16, b"a" * 32, 1, 4),
    OpenCommand(b"b" * 16, b"b" * 32, 1, 6),
    OpenCommand(b"c" * 16, b"c" * 32, 1, 7),
]


def _settled(**changes: Any) -> Any:
    line = _offered()
    held = (InventoryItem(id=b"a" * 16, digest=b"a" * 32, state="running"),)
    inventory = _inventory(0, epoch=2, head=line.head.hash, commands=held, **changes)
    return on_inventory(line, inventory, OPEN, _taken(line).get)


def test_after_the_inventory_what_it_lacks_is_signed_again() -> None:
    found = _settled()
    assert found.assessment.step is Step.IN_STEP
    assert found.assessment.line.blocked == ""
    assert (found.sign_again, found.forgotten) == ((b"b" * 16, b"c" * 16), ())


def test_a_new_life_may_have_forgotten_what_it_had_acknowledged() -> None:
    line = replace(LINE, seen=(1, 6))
    line = raise_epoch(line, Head(1, 3, CHAIN[3]), [])[2]
    inventory = _inventory(0, epoch=2, head=line.head.hash, journal=b"K" * 16)
    found = on_inventory(line, inventory, OPEN, _taken(line).get)
    assert (found.forgotten, found.sign_again) == ((b"a" * 16, b"b" * 16), (b"c" * 16,))
    assert (found.assessment.line.journal, found.assessment.line.results) == (b"K" * 16, 0)


def test_what_an_older_signer_does_not_know_is_named() -> None:
    line = _offered()
    stranger = InventoryItem(id=b"z" * 16, digest=b"z" * 32, state="running")
    inventory = _inventory(0, epoch=2, head=line.head.hash, commands=(stranger,))
    assert on_inventory(line, inventory, OPEN, _taken(line).get).foreign == (stranger,)


def test_an_inventory_that_comes_again_settles_nothing_twice() -> None:
    line = _settled().assessment.line
    inventory = _inventory(0, epoch=2, head=line.head.hash)
    again = on_inventory(line, inventory, OPEN, _taken(line).get)
    assert (again.assessment.step, again.sign_again, again.forgotten) == (Step.IN_STEP, (), ())


def test_an_order_is_above_every_epoch_that_either_side_had() -> None:
    mark = FinalMark(id=b"I" * 16, digest=b"d" * 32, status="failed")
    line = replace(LINE, head=Head(4, 2, b"h" * 32))
    order, _, raised = raise_epoch(line, Head(1, 5, CHAIN[5]), [mark])
    assert (order.from_, order.to, order.have, order.final) == (1, 5, 5, (mark,))
    assert (raised.head.epoch, raised.head.have) == (5, 0)
    assert raise_epoch(LINE, Head(9, 5, CHAIN[5]), [])[0].to == 10
