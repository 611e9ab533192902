from dataclasses import replace

import pytest

from protocol.jobs import EventBody, State
from protocol.messages import Kind
from protocol.signed import seal_envelope
from relay.store import rules
from relay.store.base import Kept, Update
from tests.support import protocol_world as w
from tests.support.relay_rows import JOURNAL, NOW, command, progress, result

JOB = rules.job_of_command(command(1), order=1, now=NOW)


def event(n: int, state: State, **fields: str) -> Update:
    return Update(JOURNAL, JOB.id, n, EventBody(at=NOW, state=state, op="upload", **fields))


def test_ids_follow_the_clock_forwards_only() -> None:
    assert rules.next_event_id(5, NOW) == NOW * 1000
    assert rules.next_event_id(NOW * 1000, NOW) == NOW * 1000 + 1
    assert rules.next_event_id(NOW * 1000, NOW - 1) == NOW * 1000 + 1


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.CANCELLING])
def test_event_moves_a_job(state: State) -> None:
    moved = rules.updated(JOB, JOB.appliance, event(1, state), now=NOW)
    assert moved is not None
    assert moved.state == state.value


def test_event_after_a_new_journal_counts_from_one_again() -> None:
    job = rules.updated(JOB, JOB.appliance, event(9, State.RUNNING), now=NOW)
    assert job is not None
    assert rules.updated(job, JOB.appliance, event(9, State.WAITING), now=NOW) is None
    other = Update(b"k" * 16, JOB.id, 1, event(1, State.WAITING).body)
    assert rules.updated(job, JOB.appliance, other, now=NOW) is not None


def test_progress_does_not_go_back() -> None:
    job = rules.updated(JOB, JOB.appliance, progress(1, command(1), 50), now=NOW)
    assert job is not None
    job = rules.updated(job, JOB.appliance, progress(2, command(1), 40), now=NOW)
    assert job is not None
    assert job.progress is not None
    assert job.progress.done == 50


def test_late_ack_does_not_move_a_running_job_back() -> None:
    job = rules.updated(JOB, JOB.appliance, event(1, State.RUNNING), now=NOW)
    assert job is not None
    assert rules.acknowledged(job, now=NOW) is None


def test_first_result_stands() -> None:
    ended = rules.ended(JOB, JOB.appliance, result(1, command(1)), now=NOW)
    assert ended is not None
    assert (
        rules.ended(ended, JOB.appliance, result(2, command(1), status="failed"), now=NOW) is None
    )
    assert rules.quarantined(ended, code="x", now=NOW) is None
    assert rules.requeued(ended, command(1, salt="again"), now=NOW) is None


def test_job_moves_to_no_other_appliance() -> None:
    assert rules.requeued(JOB, command(1, salt="x", appliance="site-2"), now=NOW) is None


def test_progress_alone_is_no_news() -> None:
    job = rules.updated(JOB, JOB.appliance, progress(1, command(1), 10), now=NOW)
    assert job is not None
    more = rules.updated(job, JOB.appliance, progress(2, command(1), 20), now=NOW)
    assert more is not None
    assert rules.is_news(JOB, job)
    assert not rules.is_news(job, more)
    assert rules.is_news(job, replace(job, message="disk 2 of 3"))


def test_same_statement_is_what_was_signed_and_nothing_around_it() -> None:
    one = seal_envelope(Kind.RESULT, b"payload", w.DEVICE)
    hint = one.replace(w.DEVICE.kid, b"?" * 16)
    assert hint != one
    assert rules.same_statement(one, hint)
    assert not rules.same_statement(one, seal_envelope(Kind.RESULT, b"other", w.DEVICE))
    assert not rules.same_statement(b"garbage", one)


@pytest.mark.parametrize(
    ("kind", "serial", "payload", "verdict"),
    [
        ("epoch", 2, b"order", "new"),
        ("epoch", 2, b"forked", "stale"),
        ("epoch", 1, b"order", "stale"),
        ("epoch", 3, b"next", "new"),
        ("record", 2, b"order", "new"),
        ("record", 2, b"forked", "stale"),
        ("manifest", 2, b"order", "stale"),
        ("receipt", 1, b"older", "new"),
    ],
)
def test_only_orders_and_records_may_be_signed_again_by_another_key(
    kind: str, serial: int, payload: bytes, verdict: str
) -> None:
    first = seal_envelope(Kind.EPOCH, b"order", w.COMMAND)
    second = seal_envelope(Kind.EPOCH, payload, w.RECORD)
    held, item = Kept(kind, 2, first, NOW), Kept(kind, serial, second, NOW)  # type: ignore[arg-type]  # a KeptKind
    assert rules.keeps(held, item) == verdict
    assert rules.keeps(None, item) == "new"


def test_thing_that_is_no_envelope_is_compared_by_its_bytes() -> None:
    held = Kept("epoch", 2, b"bytes", NOW)
    assert rules.keeps(held, held) == "same"
    assert rules.keeps(held, Kept("epoch", 2, b"others", NOW)) == "stale"
