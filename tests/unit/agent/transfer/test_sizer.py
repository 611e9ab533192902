"""Requests become smaller on a thin link and larger again on a quick one, never beyond the target's bounds."""

from hypothesis import given
from hypothesis import strategies as st

from agent.transfer.sizer import DEAD_BAND_S, Sizer
from imaging.units import KiB, MiB


class Clock:
    now = 0.0


def sizer(clock: Clock) -> Sizer:
    return Sizer(least=64 * KiB, most=4 * MiB, now=lambda: clock.now)


def test_slow_requests_halve_once_a_dead_band() -> None:
    clock = Clock()
    one = sizer(clock)
    for _ in range(16):  # all that were in flight are one complaint
        one.took(11.0, 4 * MiB)
    assert one.size == 2 * MiB
    clock.now += DEAD_BAND_S
    one.timed_out()
    assert one.size == MiB


def test_quick_requests_of_full_size_double_again() -> None:
    clock = Clock()
    one = sizer(clock)
    one.timed_out()
    clock.now += DEAD_BAND_S
    one.took(0.1, 64 * KiB)  # the end of a chunk says nothing
    assert one.size == 2 * MiB
    one.took(0.1, 2 * MiB)
    assert one.size == 4 * MiB


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 10)), max_size=200))
def test_it_stays_within_its_bounds_and_a_power_of_two(steps) -> None:
    clock = Clock()
    one = sizer(clock)
    for seconds, timed_out, passed in steps:
        clock.now += passed
        if timed_out:
            one.timed_out()
        else:
            one.took(seconds, one.size)
        assert 64 * KiB <= one.size <= 4 * MiB
        assert one.size & (one.size - 1) == 0
