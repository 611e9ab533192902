"""Places are given in the order of the first question, and stay."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from imaging.convert.places import Places
from imaging.errors import JournalInvalid


def test_the_first_question_gets_the_next_place():
    places = Places()
    assert [places.find(block) for block in (7, 5000, 7, 0)] == [
        (0, True),
        (1, True),
        (0, False),
        (2, True),
    ]
    assert places.count == 3


def test_pages_describe_what_has_a_place():
    places = Places()
    places.find(1 << 40)
    places.find(1)
    (low, first), (high, second) = places.pages()
    assert (low, first[:3].tolist()) == (0, [0, 2, 0])
    assert (high, second[0]) == (1 << 40, 1)


def test_threads_never_share_a_place():
    places = Places()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: (n % 500, places.find(n % 500)), range(4000)))
    assert len({place for _, (place, _) in found}) == 500
    assert len({(block, place) for block, (place, _) in found}) == 500
    assert sum(is_new for _, (_, is_new) in found) == 500


def test_restored_places_are_the_first_and_only_later_ones_are_fresh():
    places = Places()
    places.restore(iter([7, 5000, 0]), limit=5001)
    assert [places.find(block) for block in (0, 9, 7, 8)] == [
        (2, False),
        (3, True),
        (0, False),
        (4, True),
    ]
    assert places.fresh().tolist() == [9, 8]
    assert places.fresh().tolist() == []
    places.find(1)
    assert places.fresh().tolist() == [1]


def test_places_that_nobody_saves_are_not_kept_twice():
    places = Places()
    places.find(3)
    assert places._fresh is None


@pytest.mark.parametrize("blocks", [[1, 1], [10], [2**63]])
def test_places_that_cannot_be_are_refused(blocks):
    with pytest.raises(JournalInvalid, match=f"block {blocks[-1]} "):
        Places().restore(blocks, limit=10)


def test_a_block_that_got_its_place_while_somebody_waited_keeps_it():
    """Two threads find no place; the second one, let in behind the first, must not give another."""
    places = Places()

    class Lock:
        """Lets another thread go first, once."""

        def __init__(self):
            self.inner, self.is_first = threading.Lock(), True

        def __enter__(self):
            if self.is_first:
                self.is_first = False
                places.find(4)
            self.inner.acquire()

        def __exit__(self, *_):
            self.inner.release()

    places.find(3)  # its page is there, and so is the first look at it
    places._lock = Lock()
    assert places.find(4) == (1, False)
    assert places.count == 2
