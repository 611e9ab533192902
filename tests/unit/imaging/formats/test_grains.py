"""GrainClaims: whatever the runs are, it says what one comparison of every byte would say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.errors import BlockOverlap, Truncated, UnsupportedImage
from imaging.formats.spans import FileRange
from imaging.formats.vmdk.grains import GrainClaims

GRAIN, FILE = 16, 400
"""Sectors."""


def claims(*reserved: FileRange, file_size: int = FILE * 512, grain: int = GRAIN) -> GrainClaims:
    return GrainClaims(file_size, grain_size=grain * 512, reserved=reserved)


@given(st.lists(st.tuples(st.integers(4, FILE - GRAIN), st.integers(1, 5)), max_size=8))
def test_a_run_passes_only_if_all_its_bytes_are_free(runs: list[tuple[int, int]]) -> None:
    made, taken = claims(FileRange(0, 4 * 512, "the header")), {0, 1, 2, 3}
    for sector, count in runs:
        wanted = set(range(sector, sector + count * GRAIN))
        expected: type[Exception] | None = None
        if max(wanted) >= FILE:
            expected = Truncated
        elif wanted & taken:
            expected = BlockOverlap
        if expected is None:
            made.claim(0, sector, count, count * GRAIN * 512)
            taken |= wanted
        else:
            with pytest.raises(expected):
                made.claim(0, sector, count, count * GRAIN * 512)


def test_the_last_grain_may_end_with_the_file() -> None:
    made = claims()
    made.claim(7, FILE - 3, 1, 3 * 512)
    with pytest.raises(Truncated) as caught:
        made.claim(8, FILE - 20, 2, 21 * 512)
    assert caught.value.fields["block"] == 9


def test_metadata_is_nobodys() -> None:
    made = claims(FileRange(64 * 512, 512, "the grain directory"))
    made.claim(0, 48, 1, GRAIN * 512)
    made.claim(1, 65, 1, GRAIN * 512)
    with pytest.raises(BlockOverlap, match="the grain directory"):
        claims(FileRange(64 * 512, 512, "the grain directory")).claim(0, 49, 1, GRAIN * 512)


def test_the_largest_grains_may_begin_at_any_sector() -> None:
    made = claims(grain=65536, file_size=10 * 65536 * 512)
    made.claim(0, 65535, 1, 65536 * 512)
    made.claim(1, 65535 + 65536, 2, 2 * 65536 * 512)
    with pytest.raises(BlockOverlap):
        made.claim(3, 1, 1, 65536 * 512)


def test_a_file_of_two_tib_costs_only_what_is_claimed() -> None:
    made = claims(file_size=2**41, grain=16)
    made.claim(0, 2**32 - 16, 1, 8192)
    with pytest.raises(BlockOverlap):
        made.claim(1, 2**32 - 17, 1, 8192)


def test_a_file_beyond_all_address_spaces_is_refused() -> None:
    with pytest.raises(UnsupportedImage):
        claims(file_size=2**70)
