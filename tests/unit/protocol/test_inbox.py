"""The agent's order state: epochs by compare-and-swap, receipts, results, and the lock of an older journal."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from protocol.acceptor import Accept, Head, Hold, Reject, judge
from protocol.clock import SignedClock
from protocol.codec import encode
from protocol.errors import OutOfOrder, ProtocolError
from protocol.ids import digest_of
from protocol.inbox import (
    JOURNAL_BEHIND,
    EpochAgain,
    EpochRaise,
    begin,
    confirm,
    consume,
    judge_epoch,
    lock_notice,
    number_result,
    on_time,
    open_receipt,
    open_time,
)
from protocol.messages import Epoch, FinalMark, Kind, Receipt, ResultsThrough, Revocation
from protocol.signed import SigningKey, sign
from tests.support import protocol_world as w

HERE = Head(1, 5, b"h" * 32)
STATE = w.inbox_at(HERE, results_last=4, confirmed=2)
MARK = FinalMark(id=b"I" * 16, digest=b"d" * 32, status="succeeded")


def _order(**changes: Any) -> Epoch:
    order = Epoch(
        v=1,
        tenant=w.TENANT,
        appliance=w.APPLIANCE,
        from_=1,
        to=2,
        have=5,
        head=HERE.hash,
        final=(MARK,),
    )
    return msgspec.structs.replace(order, **changes)


def _env(key: SigningKey = w.COMMAND, **changes: Any) -> bytes:
    return sign(Kind.EPOCH, _order(**changes), key)


def _facts(**changes: Any) -> Any:
    return w.facts(head=HERE, **changes)


def test_a_new_journal_begins_at_its_record() -> None:
    state = begin(w.record(), w.RECORD_PAYLOAD, journal=b"J" * 16)
    assert state.head == Head(1, 0, digest_of(w.RECORD_PAYLOAD))
    assert not state.locked


def test_consume_takes_only_a_verdict_on_this_very_head() -> None:
    verdict = judge(w.signed_command(), w.facts())
    assert isinstance(verdict, Accept)
    once = consume(w.inbox(), verdict)
    assert once.head == verdict.head
    with pytest.raises(OutOfOrder):
        consume(once, verdict)


def test_a_consumed_command_ends_the_inventory() -> None:
    verdict = judge(w.signed_command(), w.facts())
    assert isinstance(verdict, Accept)
    assert not consume(replace(w.inbox(), inventory_due=True), verdict).inventory_due


def test_results_are_numbered_without_gaps() -> None:
    state, first = number_result(STATE)
    state, second = number_result(state)
    assert (first, second, state.results_last) == (5, 6, 6)


# --- epoch


def test_an_epoch_is_one_swap() -> None:
    verdict = judge_epoch(_env(), STATE, _facts())
    assert isinstance(verdict, EpochRaise)
    assert verdict.epoch.final == (MARK,)
    assert verdict.state.head == Head(2, 0, digest_of(encode(_order())))
    assert verdict.state.inventory_due
    assert not verdict.new_life
    assert (verdict.state.journal, verdict.state.results_last) == (STATE.journal, 4)


def test_the_same_epoch_is_acknowledged_again() -> None:
    verdict = judge_epoch(_env(), STATE, _facts())
    assert isinstance(verdict, EpochRaise)
    again = judge_epoch(_env(), verdict.state, w.facts(head=verdict.state.head))
    assert again == EpochAgain()


def test_an_epoch_opens_the_lock_and_an_older_journal_begins_a_new_life() -> None:
    locked = replace(STATE, locked=JOURNAL_BEHIND)
    verdict = judge_epoch(_env(), locked, _facts(locked=JOURNAL_BEHIND))
    assert isinstance(verdict, EpochRaise)
    assert verdict.new_life
    assert verdict.state.journal != STATE.journal
    assert (verdict.state.locked, verdict.state.results_last, verdict.state.confirmed) == ("", 0, 0)


def test_an_epoch_may_jump_over_numbers_that_either_side_used() -> None:
    assert isinstance(judge_epoch(_env(to=7), STATE, _facts()), EpochRaise)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"have": 4}, "protocol.epoch-cas"),
        ({"head": bytes(32)}, "protocol.epoch-cas"),
        ({"from_": 0}, "protocol.epoch-old"),
        ({"from_": 3, "to": 4}, "protocol.epoch-ahead"),
        ({"to": 1}, "protocol.bad-field"),
        ({"appliance": "site-2"}, "protocol.wrong-audience"),
        ({"tenant": "other"}, "protocol.wrong-tenant"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_an_epoch_that_does_not_fit_is_rejected(changes: dict[str, Any], code: str) -> None:
    verdict = judge_epoch(_env(**changes), STATE, _facts())
    assert isinstance(verdict, Reject)
    assert verdict.code == code


@pytest.mark.parametrize("key", [w.TIME, w.RECORD, w.DEVICE], ids=["time", "record", "device"])
def test_only_a_command_key_raises_epochs(key: SigningKey) -> None:
    assert isinstance(judge_epoch(_env(key), STATE, _facts()), Reject)


def test_an_epoch_of_a_revoked_key_is_rejected() -> None:
    rows = tuple(
        msgspec.structs.replace(row, revoked=Revocation(since=w.T0, running="stop"))
        for row in w.manifest().keys
    )
    verdict = judge_epoch(_env(), STATE, _facts(ring=w.ring(w.manifest(keys=rows))))
    assert isinstance(verdict, Reject)
    assert verdict.code == "protocol.key-revoked"


def test_an_epoch_of_an_ended_key_is_rejected_by_the_floor() -> None:
    late = SignedClock(floor=w.T0 + 11 * w.YEAR_MS)
    verdict = judge_epoch(_env(), STATE, _facts(clock=late))
    assert isinstance(verdict, Reject)
    assert verdict.code == "protocol.key-not-valid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"proven": False}, "protocol.time-unproven"),
        ({"manifest_wanted": 2}, "protocol.manifest-stale"),
    ],
    ids=["time", "manifest"],
)
def test_an_epoch_waits_for_time_and_manifest(changes: dict[str, Any], code: str) -> None:
    assert judge_epoch(_env(), STATE, _facts(**changes)) == Hold(code)


# --- receipts


def test_a_receipt_confirms_up_to_its_number_and_never_back() -> None:
    further = confirm(STATE, ResultsThrough(journal=STATE.journal, n=3))
    assert further.confirmed == 3
    assert confirm(further, ResultsThrough(journal=STATE.journal, n=1)) == further


def test_another_journals_receipt_is_ignored() -> None:
    assert confirm(STATE, ResultsThrough(journal=b"K" * 16, n=99)) == STATE


def test_a_receipt_beyond_the_last_result_deletes_nothing_and_locks() -> None:
    locked = confirm(STATE, ResultsThrough(journal=STATE.journal, n=5))
    assert (locked.confirmed, locked.locked) == (2, JOURNAL_BEHIND)


def _receipt(**changes: Any) -> Receipt:
    row = Receipt(v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=b"J" * 16, n=3)
    return msgspec.structs.replace(row, **changes)


def test_receipt_opens_for_its_appliance_only() -> None:
    through = open_receipt(sign(Kind.RECEIPT, _receipt(), w.COMMAND), _facts())
    assert through == ResultsThrough(journal=b"J" * 16, n=3)


@pytest.mark.parametrize(
    "data",
    [
        sign(Kind.RECEIPT, _receipt(appliance="site-2"), w.COMMAND),
        sign(Kind.RECEIPT, _receipt(tenant="other"), w.COMMAND),
        sign(Kind.RECEIPT, _receipt(), w.TIME),
        sign(Kind.COMMAND, _receipt(), w.COMMAND),
    ],
    ids=["appliance", "tenant", "role", "kind"],
)
def test_a_foreign_receipt_does_not_open(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_receipt(data, _facts())


# --- time


@pytest.mark.parametrize(
    ("epoch", "seen", "locked"),
    [(1, 5, ""), (1, 4, ""), (0, 99, ""), (1, 6, JOURNAL_BEHIND), (2, 0, JOURNAL_BEHIND)],
)
def test_time_locks_a_journal_that_holds_less_than_was_seen(
    epoch: int, seen: int, locked: str
) -> None:
    assert on_time(STATE, w.signed_time(epoch=epoch, seen=seen)).locked == locked


def test_a_lock_outlives_the_next_time() -> None:
    locked = replace(STATE, locked=JOURNAL_BEHIND)
    assert on_time(locked, w.signed_time(seen=5)).locked == JOURNAL_BEHIND


def test_time_opens_with_its_keys_end() -> None:
    time, exp = open_time(sign(Kind.TIME, w.signed_time(), w.TIME), _facts())
    assert (time, exp) == (w.signed_time(), w.T0 + 10 * w.YEAR_MS)


@pytest.mark.parametrize(
    "data",
    [
        sign(Kind.TIME, w.signed_time(appliance="site-2"), w.TIME),
        sign(Kind.TIME, w.signed_time(), w.COMMAND),
    ],
    ids=["appliance", "role"],
)
def test_a_foreign_time_does_not_open(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_time(data, _facts())


def test_a_locked_journal_says_so_where_it_stands() -> None:
    notice = lock_notice(replace(STATE, locked=JOURNAL_BEHIND))
    assert (notice.epoch, notice.have, notice.code) == (1, 5, JOURNAL_BEHIND)
