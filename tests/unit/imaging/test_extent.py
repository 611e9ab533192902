"""Extents as values: joining, cutting and counting."""

from imaging.extent import Extent, Kind, clip, coalesce, data_bytes

D, Z, H = Kind.DATA, Kind.ZERO, Kind.HOLE


def test_neighbours_of_one_kind_are_joined() -> None:
    parts = [Extent(0, 5, D), Extent(5, 5, D), Extent(10, 1, H), Extent(11, 2, Z), Extent(13, 1, Z)]
    assert list(coalesce(parts)) == [Extent(0, 10, D), Extent(10, 1, H), Extent(11, 3, Z)]
    assert list(coalesce([])) == []


def test_a_gap_keeps_extents_apart() -> None:
    parts = [Extent(0, 5, D), Extent(6, 5, D)]
    assert list(coalesce(parts)) == parts


def test_clip_cuts_both_ends_and_drops_what_is_outside() -> None:
    parts = [Extent(0, 5, D), Extent(5, 5, H), Extent(10, 5, D)]
    assert list(clip(parts, 3, 8)) == [Extent(3, 2, D), Extent(5, 5, H), Extent(10, 1, D)]
    assert list(clip(parts, 5, 0)) == []
    assert list(clip(parts, 20, 5)) == []


def test_only_data_counts() -> None:
    parts = [Extent(0, 5, D), Extent(5, 6, H), Extent(11, 7, Z), Extent(18, 1, D)]
    assert data_bytes(parts) == 6
    assert [part.is_data for part in parts] == [True, False, False, True]
    assert parts[1].end == 11
