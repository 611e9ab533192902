"""The transition table, and progress that never goes back."""

import itertools

import pytest

from protocol.errors import IllegalTransition
from protocol.jobs import FINAL, TRANSITIONS, JobEvent, Progress, State, advance, merge_progress


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(State, JobEvent)), ids=lambda v: v.value
)
def test_what_is_not_in_the_table_is_illegal(state: State, event: JobEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            advance(state, event)


def test_nothing_leaves_a_final_state_and_every_other_reaches_one() -> None:
    assert FINAL.isdisjoint(state for state, _ in TRANSITIONS)
    reach = set(FINAL)
    for _ in State:
        reach |= {state for (state, _), to in TRANSITIONS.items() if to in reach}
    assert reach == set(State)


def _progress(attempt: int, step: str, done: int) -> Progress:
    return Progress(attempt=attempt, step=step, done=done, total=100)


@pytest.mark.parametrize(
    ("old", "new", "newer"),
    [
        ((1, "copy", 5), (1, "copy", 6), True),
        ((1, "copy", 5), (1, "copy", 4), False),
        ((1, "copy", 5), (1, "verify", 0), True),
        ((1, "copy", 5), (2, "copy", 0), True),
        ((2, "copy", 0), (1, "copy", 99), False),
    ],
)
def test_a_late_report_never_moves_progress_back(
    old: tuple[int, str, int], new: tuple[int, str, int], newer: bool
) -> None:
    kept = merge_progress(_progress(*old), _progress(*new))
    assert kept == _progress(*(new if newer else old))


def test_the_first_report_counts() -> None:
    assert merge_progress(None, _progress(1, "copy", 0)) == _progress(1, "copy", 0)
