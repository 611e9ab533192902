"""Signed time: what counts, how long it is fresh, and what alone may expire anything."""

import pytest

from protocol.clock import FRESH_S, MAX_OUTSTANDING, SignedClock
from protocol.errors import TimeRejected
from tests.support import protocol_world as w

NOW = w.T0 + w.HOUR_MS
LATE = NOW + w.YEAR_MS


def _asked(boot_s: float = 0.0) -> SignedClock:
    clock = SignedClock()
    clock.ask(b"N" * 16, boot_s=boot_s)
    return clock


def _feed(clock: SignedClock, boot_s: float = 1.0, *, wall_s: float = 1.0, **time: object) -> None:
    clock.feed(w.signed_time(**time), key_exp=LATE, boot_s=boot_s, wall_s=wall_s)


def test_time_runs_on_by_the_boot_clock_and_ends_after_an_hour() -> None:
    clock = _asked()
    assert clock.now(boot_s=0.0) is None
    _feed(clock, 1.0)
    assert clock.now(boot_s=3.5) == NOW + 2500
    assert clock.now(boot_s=1.0 + FRESH_S) == NOW + int(FRESH_S * 1000)
    assert clock.now(boot_s=1.1 + FRESH_S) is None
    assert clock.best(boot_s=9e9) == clock.floor == NOW
    assert clock.guess(boot_s=1.0 + 2 * FRESH_S) == NOW + int(2 * FRESH_S * 1000)
    assert SignedClock(floor=NOW).guess(boot_s=1.0) is None


def test_a_nonce_counts_once() -> None:
    clock = _asked()
    _feed(clock)
    with pytest.raises(TimeRejected):
        _feed(clock)


@pytest.mark.parametrize(
    ("boot_s", "time"),
    [(1.0, {"nonce": b"O" * 16}), (10.1, {}), (1.0, {"now": LATE + 1})],
    ids=["never asked", "too slow", "after its key"],
)
def test_time_that_does_not_count_changes_nothing(boot_s: float, time: dict[str, object]) -> None:
    clock = _asked()
    with pytest.raises(TimeRejected):
        _feed(clock, boot_s, **time)
    assert (clock.floor, clock.now(boot_s=boot_s)) == (0, None)


def test_old_questions_are_forgotten() -> None:
    clock = _asked()
    for n in range(MAX_OUTSTANDING):
        clock.ask(bytes([n]) * 16, boot_s=0.0)
    with pytest.raises(TimeRejected):
        _feed(clock)


def test_the_floor_never_falls_by_time_but_by_root() -> None:
    clock = _asked()
    _feed(clock)
    clock.ask(b"M" * 16, boot_s=2.0)
    _feed(clock, 3.0, nonce=b"M" * 16, now=NOW - 5000)
    assert clock.floor == NOW
    assert clock.now(boot_s=3.0) == NOW - 5000
    clock.set_floor(5)
    assert clock.floor == 5


@pytest.mark.parametrize(
    ("floor", "fresh", "unproven", "expired"),
    [
        (11, False, False, True),
        (11, False, True, True),
        (10, False, False, None),
        (10, False, True, False),
        (0, True, False, True),
    ],
    ids=["floor", "floor, unproven", "held", "judged by the floor", "fresh"],
)
def test_only_floor_or_fresh_time_expires(
    floor: int, fresh: bool, unproven: bool, expired: bool | None
) -> None:
    clock = _asked()
    if fresh:
        _feed(clock)
        clock.set_floor(0)
    else:
        clock.set_floor(floor)
    assert clock.expired(10, boot_s=1.0, accept_unproven=unproven) is expired


def test_what_fresh_time_allows_is_not_expired() -> None:
    clock = _asked()
    _feed(clock)
    assert clock.expired(NOW, boot_s=1.0, accept_unproven=False) is False
    assert clock.expired(NOW, boot_s=1.1, accept_unproven=False) is True


@pytest.mark.parametrize(
    ("boot_s", "wall_s", "due"),
    [
        (100.0, 100.0, False),
        (900.0, 900.0, True),
        (100.0, 106.0, True),
        (100.0, 94.0, True),
        (9.0, 99.0, False),
    ],
    ids=["early", "15 minutes", "wall ran ahead", "wall fell back", "just asked"],
)
def test_time_is_asked_by_schedule_and_when_the_clocks_drift(
    boot_s: float, wall_s: float, due: bool
) -> None:
    clock = _asked()
    _feed(clock)
    assert clock.due(boot_s=boot_s, wall_s=wall_s) is due


def test_a_clock_that_never_asked_is_due() -> None:
    assert SignedClock().due(boot_s=0.0, wall_s=0.0)
