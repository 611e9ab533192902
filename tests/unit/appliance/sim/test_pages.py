"""PageMap against the plain model: a set of page numbers."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.sim.pages import PageMap

_STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), max_size=25)


def _runs(pages: set[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for page in sorted(pages):
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


@given(steps=_STEPS, window=st.tuples(st.integers(0, 50), st.integers(1, 60)))
def test_map_holds_what_a_set_of_pages_holds(
    steps: list[tuple[bool, int, int]], window: tuple[int, int]
) -> None:
    found, model = PageMap(), set[int]()
    for adds, offset, length in steps:
        pages = set(range(offset, offset + length))
        if adds:
            found.add(offset, length)
            model |= pages
        else:
            found.remove(offset, length)
            model -= pages
    assert list(found.within(0, 100)) == _runs(model)
    assert found.total() == len(model)
    first, length = window
    assert list(found.within(first, length)) == _runs(model & set(range(first, first + length)))
