"""Places are given in the order of the first question, and stay."""

from concurrent.futures import ThreadPoolExecutor

from imaging.convert.places import Places


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
