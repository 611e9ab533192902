"""Which side holds a transfer back, by where its workers are."""

import pytest

from agent import whereabouts
from agent.transfer.flow import held_back_by, shares
from agent.whereabouts import At, Place


@pytest.mark.parametrize(
    ("workers", "side"),
    [
        ([At.READING, At.READING, At.TURN, At.TURN], "source"),
        (
            [At.READING, At.TURN, At.ANSWER, At.SENDING],
            "source",
        ),  # one more would send if it had bytes
        ([At.COMPUTING, At.COMPUTING, At.TURN, At.SENDING], "cpu"),
        ([At.COMPUTING, At.READING, At.TURN], "source"),
        ([At.SENDING, At.SENDING, At.ANSWER, At.READING], "network"),
        ([At.ANSWER, At.ANSWER, At.SENDING, At.READING], "cloud"),
        ([At.SLOT, At.SLOT, At.SENDING], "cloud"),
        ([At.PAUSED, At.DONE], "cloud"),
        ([At.BROKEN, At.DONE, At.DONE], "network"),
        ([At.LIMITED, At.LIMITED, At.SENDING], "limit"),
        ([At.WRITING, At.DONE], "target"),
        ([At.DONE, At.READING], "source"),
        ([At.DONE, At.COMPUTING], "cpu"),
    ],
)
def test_the_side_that_most_workers_wait_for(workers: list[At], side: str) -> None:
    assert held_back_by(workers) == side


def test_every_place_belongs_to_a_side() -> None:
    for at in At:
        assert held_back_by([at])


def test_shares_are_percents_the_largest_first_and_tell_nothing_tiny() -> None:
    told = shares({"cpu": 1, "cloud": 799, "source": 200})
    assert list(told.items()) == [("cloud", 80), ("source", 20)]


def test_a_thread_that_registered_nothing_tells_nobody() -> None:
    whereabouts.now(At.SENDING)
    place = Place()
    whereabouts.register(place)
    whereabouts.now(At.ANSWER)
    assert place.at is At.ANSWER
