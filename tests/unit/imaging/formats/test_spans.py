"""SpanMap, UnitClaims: find every overlap, against a slow reference, and stays small for absurd files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.errors import BlockOverlap, InvalidImage, Truncated
from imaging.formats.claims import UnitClaims
from imaging.formats.spans import FileRange, SpanMap, require_apart
from imaging.units import MiB

SPAN, UNIT, FILE = 40, 8, 4000
RESERVED = [FileRange(0, 64, "head"), FileRange(800, 16, "table"), FileRange(3990, 10, "footer")]


def new_map() -> SpanMap:
    return SpanMap(FILE, span=SPAN, unit=UNIT, reserved=RESERVED)


@given(st.lists(st.tuples(st.integers(0, 510), st.integers(1, SPAN)), max_size=40))
def test_agrees_with_comparing_every_pair(blocks: list[tuple[int, int]]) -> None:
    spans, claimed = new_map(), list[int]()
    for number, (unit, length) in enumerate(blocks):
        offset = unit * UNIT
        apart = all(abs(offset - other) >= SPAN for other in claimed)
        free = all(offset + length <= r.offset or offset >= r.end for r in RESERVED)
        try:
            spans.claim(number, offset, length)
        except Truncated:
            assert offset + length > FILE
        except BlockOverlap:
            assert not (apart and free)
        else:
            assert offset + length <= FILE
            assert apart
            assert free
            claimed.append(offset)


def test_the_message_names_both_sides() -> None:
    spans = new_map()
    spans.claim(1, 400, SPAN)
    with pytest.raises(
        BlockOverlap, match="block 2 at file offset 432 overlaps another block at 400"
    ):
        spans.claim(2, 432, SPAN)
    with pytest.raises(BlockOverlap, match=r"overlaps table \(800 to 816\)"):
        spans.claim(3, 808, SPAN)


def test_an_absurd_file_is_refused_instead_of_mapped() -> None:
    with pytest.raises(InvalidImage, match="too small"):
        SpanMap(1 << 62, span=1 << 20, unit=1 << 20, reserved=[])


def test_ranges_are_sorted_and_must_be_apart() -> None:
    assert require_apart(reversed(RESERVED), FILE) == RESERVED
    with pytest.raises(BlockOverlap, match="b begins at file offset 9, inside a"):
        require_apart([FileRange(9, 1, "b"), FileRange(0, 10, "a")], FILE)
    with pytest.raises(Truncated, match="a ends at file offset 4001"):
        require_apart([FileRange(3991, 10, "a")], FILE)


@pytest.mark.parametrize("first", [0, 1])
def test_a_cut_block_has_the_rest_of_its_unit(first: int) -> None:
    """The last block of a disk may be shorter than a unit; nothing else begins in that unit."""
    claims = UnitClaims(16 * MiB, unit=MiB, reserved=[FileRange(0, MiB, "the header")])
    both = [(0, 4 * MiB, 2 * MiB), (1, 5 * MiB, 4096)]
    claims.claim(*both[first])
    with pytest.raises(BlockOverlap, match="another block at"):
        claims.claim(*both[1 - first])
    claims.claim(2, 6 * MiB, 4096)
    with pytest.raises(BlockOverlap):
        claims.claim(3, 6 * MiB, 4096)
