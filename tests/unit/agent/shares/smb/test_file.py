"""Allocated ranges become extents: gaps are holes, whatever is odd is data."""

import pytest

from agent.shares.smb.file import _describe
from imaging.extent import Extent, Kind

DATA, HOLE = Kind.DATA, Kind.HOLE


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], [(0, 100, HOLE)]),
        ([(0, 100)], [(0, 100, DATA)]),
        ([(10, 20)], [(0, 10, HOLE), (10, 20, DATA), (30, 70, HOLE)]),
        ([(90, 50)], [(0, 90, HOLE), (90, 10, DATA)]),
        ([(-50, 60)], [(0, 10, DATA), (10, 90, HOLE)]),
        (
            [(50, 10), (10, 10)],
            [(0, 10, HOLE), (10, 10, DATA), (20, 30, HOLE), (50, 10, DATA), (60, 40, HOLE)],
        ),
        ([(0, 50), (30, 70)], [(0, 50, DATA), (50, 50, DATA)]),
        ([(0, 100), (10, 5)], [(0, 100, DATA)]),
        ([(20, 0), (30, -5)], [(0, 100, HOLE)]),
        ([(500, 10)], [(0, 100, HOLE)]),
    ],
    ids=[
        "none", "all", "middle", "over the end", "before the start", "out of order",
        "overlapping", "inside", "empty and negative", "outside",
    ],
)  # fmt: skip
def test_ranges_describe_the_window_without_gaps(
    ranges: list[tuple[int, int]], expected: list[tuple[int, int, Kind]]
) -> None:
    assert list(_describe(0, 100, ranges)) == [Extent(*item) for item in expected]
