"""The signer's line: numbers, receipts, results and what signed time says."""

from dataclasses import replace
from typing import Any

import pytest

from protocol.acceptor import Accept, Head, judge
from protocol.codec import encode
from protocol.errors import LineLocked
from protocol.ids import digest_of
from protocol.issuer import (
    Line,
    ResultStep,
    advance,
    header_for_next,
    link_fits,
    make_time,
    mark_receipted,
    new_line,
    on_result,
    raise_epoch,
    receipt_due,
)
from protocol.messages import Result, ResultsThrough
from tests.support import protocol_world as w

LINE = replace(new_line(w.record(), w.RECORD_PAYLOAD), journal=b"J" * 16, results=2)


def _result(n: int = 3, **changes: Any) -> Result:
    return w.result(n=n, **changes)


def test_the_first_command_continues_the_record() -> None:
    place = header_for_next(new_line(w.record(), w.RECORD_PAYLOAD))
    assert (place.epoch, place.seq, place.prev) == (1, 1, digest_of(w.RECORD_PAYLOAD))


def test_what_the_line_allocates_the_appliance_accepts() -> None:
    line, facts = new_line(w.record(), w.RECORD_PAYLOAD), w.facts()
    for n in range(1, 4):
        place = header_for_next(line)
        command = w.command(epoch=place.epoch, seq=place.seq, prev=place.prev, id=bytes([n]) * 16)
        verdict = judge(w.envelope(w.Kind.COMMAND, command, w.COMMAND), facts)
        assert isinstance(verdict, Accept)
        line = advance(line, digest_of(encode(command)))
        assert verdict.head == line.head
        facts = replace(facts, head=verdict.head)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (replace(LINE, checked=False), "signer.unchecked"),
        (replace(LINE, locked="signer.fork"), "signer.fork"),
        (raise_epoch(LINE, LINE.head, [])[2], "signer.inventory-wanted"),
    ],
    ids=["unchecked", "locked", "offered"],
)
def test_nothing_is_signed_on_a_blocked_line(line: Line, reason: str) -> None:
    with pytest.raises(LineLocked) as caught:
        header_for_next(line)
    assert caught.value.fields["reason"] == reason


# --- receipts


def test_a_receipt_is_due_once() -> None:
    through = receipt_due(LINE)
    assert through == ResultsThrough(journal=b"J" * 16, n=2)
    assert receipt_due(mark_receipted(LINE, through)) is None


def test_results_through_of_a_command_is_a_receipt() -> None:
    line = advance(LINE, b"d" * 32, through=receipt_due(LINE))
    assert receipt_due(line) is None


def test_a_receipt_of_another_journal_marks_nothing() -> None:
    assert mark_receipted(LINE, ResultsThrough(journal=b"K" * 16, n=9)) == LINE


# --- results


@pytest.mark.parametrize(
    ("result", "known", "step", "counted"),
    [
        (_result(3), None, ResultStep.NEW, 3),
        (_result(3), _result(1), ResultStep.AGAIN, 3),
        (_result(3), _result(1, status="failed"), ResultStep.EQUIVOCATION, 3),
        (_result(4), None, ResultStep.GAP, 2),
        (_result(2), _result(2), ResultStep.AGAIN, 2),
        (_result(2), _result(2, status="failed"), ResultStep.EQUIVOCATION, 2),
        (_result(2), None, ResultStep.EQUIVOCATION, 2),
        (_result(9, journal=b"K" * 16), None, ResultStep.LATE, 2),
        (_result(9, journal=b"K" * 16), _result(1), ResultStep.AGAIN, 2),
        (_result(9, journal=b"K" * 16), _result(1, code="x"), ResultStep.EQUIVOCATION, 2),
    ],
    ids=[
        "next",
        "next, known",
        "next, contradicts",
        "gap",
        "again",
        "again, contradicts",
        "number used for another",
        "earlier life",
        "earlier life, known",
        "earlier life, contradicts",
    ],
)
def test_each_result_is_one_of_these(
    result: Result, known: Result | None, step: ResultStep, counted: int
) -> None:
    found, line = on_result(LINE, result, known=known)
    assert (found, line.results) == (step, counted)


# --- time


def test_time_says_the_highest_place_that_was_stated() -> None:
    line = replace(LINE, seen=(1, 5), head=Head(3, 0, b"h" * 32))
    time = make_time(line, b"N" * 16, now=w.T0, manifest_serial=4, link=b"L" * 16)
    assert (time.epoch, time.seen, time.manifest_serial) == (1, 5, 4)
    assert (time.nonce, time.appliance, time.now, time.link) == (
        b"N" * 16,
        w.APPLIANCE,
        w.T0,
        b"L" * 16,
    )


def test_time_asks_more_of_a_journal_that_lacks_results() -> None:
    line = replace(LINE, seen=(1, 5), short=True)
    assert make_time(line, b"N" * 16, now=w.T0, manifest_serial=1, link=bytes(16)).seen == 6


@pytest.mark.parametrize(
    ("returned", "fits"),
    [(b"", False), (b"c" * 16, True), (b"i" * 16, True), (b"x" * 16, False)],
)
def test_a_link_fits_if_it_was_confirmed_or_issued_since(returned: bytes, fits: bool) -> None:
    assert link_fits(returned, confirmed=b"c" * 16, issued=[b"i" * 16]) is fits


# --- what a result proves about the history

AHEAD = replace(LINE, head=Head(1, 2, b"h" * 32), seen=(1, 1))


def test_a_result_proves_that_its_command_was_consumed() -> None:
    _, line = on_result(AHEAD, _result(3, seq=2), known=None)
    assert (line.seen, line.locked) == ((1, 2), "")


@pytest.mark.parametrize("n", [3, 9], ids=["next", "gap"])
def test_a_result_of_a_command_that_we_never_signed_shows_an_older_database(n: int) -> None:
    _, line = on_result(AHEAD, _result(n, seq=3), known=None)
    assert (line.seen, line.blocked) == ((1, 3), "signer.behind")


def test_a_result_of_another_command_under_our_number_shows_a_fork() -> None:
    _, line = on_result(AHEAD, _result(3, seq=2), known=None, ours=b"o" * 32)
    assert line.blocked == "signer.fork"
    _, line = on_result(AHEAD, _result(3, seq=2, epoch=0), known=None, ours=b"o" * 32)
    assert line.blocked == ""
