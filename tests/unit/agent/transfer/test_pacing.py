"""Which limit holds when, and that a change reaches a limiter that is taken from."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.transfer.pacing import Limits, Pacing, limits_in, rate_at
from imaging.units import MiB
from protocol.codec import encode
from protocol.ops import DAYS, LimitWindow, SetLimitsArgs

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
WORK = LimitWindow(
    days=("mon", "tue", "wed", "thu", "fri"), begin="08:00", end="18:00", bandwidth=5 * MiB
)
NIGHT = LimitWindow(days=("fri",), begin="22:00", end="06:00", bandwidth=None)
LIMITS = Limits(50 * MiB, (WORK, NIGHT))


def at(day: str, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=DAYS.index(day), hours=hour, minutes=minute)


def test_windows_hold_on_their_days_and_hours() -> None:
    assert rate_at(LIMITS, at("mon", 7, 59)) == 50 * MiB
    assert rate_at(LIMITS, at("mon", 8)) == 5 * MiB
    assert rate_at(LIMITS, at("fri", 17, 59)) == 5 * MiB
    assert rate_at(LIMITS, at("fri", 18)) == 50 * MiB
    assert rate_at(LIMITS, at("sat", 12)) == 50 * MiB


def test_a_window_over_midnight_belongs_to_the_day_that_it_began() -> None:
    assert rate_at(LIMITS, at("fri", 23)) is None
    assert rate_at(LIMITS, at("sat", 5, 59)) is None
    assert rate_at(LIMITS, at("sat", 6)) == 50 * MiB
    assert rate_at(LIMITS, at("thu", 23)) == 50 * MiB
    assert rate_at(LIMITS, at("fri", 3)) == 50 * MiB


def test_without_days_it_is_every_day_and_24_00_is_its_end() -> None:
    limits = Limits(None, (LimitWindow(begin="12:00", end="24:00", bandwidth=MiB),))
    assert [rate_at(limits, at(day, 23, 59)) for day in DAYS] == [MiB] * 7
    assert [rate_at(limits, at(day, 11, 59)) for day in DAYS] == [None] * 7


TIMES = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")


@given(begin=TIMES, end=TIMES, minutes=st.integers(0, 7 * 24 * 60))
def test_a_window_and_its_complement_never_hold_together(begin, end, minutes) -> None:
    if begin == end:
        return
    moment = MONDAY + timedelta(minutes=minutes)
    one = Limits(1, (LimitWindow(begin=begin, end=end, bandwidth=MiB),))
    other = Limits(1, (LimitWindow(begin=end, end=begin, bandwidth=MiB),))
    assert {rate_at(one, moment), rate_at(other, moment)} == {1, MiB}


def test_a_change_reaches_appliance_and_jobs_and_the_lower_one_holds() -> None:
    moment = [at("sun", 12)]
    pacing = Pacing(Limits(10 * MiB), lambda: moment[0], lambda: 0.0)
    with pacing.job(b"j" * 16, Limits(20 * MiB)) as limiter:
        assert (limiter.rate, limiter.lowest) == (20 * MiB, 10 * MiB)
        pacing.set(b"j" * 16, Limits(2 * MiB))
        assert limiter.lowest == 2 * MiB
        pacing.set(b"x" * 16, Limits(1))  # a job that does not run
        pacing.set(None, LIMITS)
        assert pacing.limiter.rate == 50 * MiB
        moment[0] = at("mon", 9)
        pacing.apply()
        assert pacing.limiter.rate == 5 * MiB
        assert limiter.lowest == 2 * MiB
    pacing.set(b"j" * 16, Limits(1))
    assert limiter.rate == 2 * MiB  # it ended


def test_an_order_survives_the_journal() -> None:
    kept = encode(SetLimitsArgs(bandwidth=MiB, windows=(WORK,)))
    assert limits_in(kept) == Limits(MiB, (WORK,))
