"""The copy plan: cut at digest blocks, lazy, every byte of the disk in one step."""

from hypothesis import given
from hypothesis import strategies as st

from imaging.convert.plan import Gap, Run, plan_runs
from imaging.extent import Cell, Extent, Kind

B, R = 8, 32


def plan(extents, size):
    return list(plan_runs(iter(extents), size, block=B, run=R))


def test_nothing_is_one_gap():
    assert plan([], 100) == [Gap(0, 100)]
    assert plan([Extent(0, 60, Kind.HOLE), Extent(60, 40, Kind.ZERO)], 100) == [Gap(0, 100)]


def test_data_are_cut_at_blocks_and_runs():
    steps = plan([Extent(30, 12, Kind.DATA)], 100)
    assert steps == [
        Run(0, 32, (Cell(24, 8, ((30, 2),)),)),
        Run(32, 32, (Cell(32, 8, ((32, 8),)), Cell(40, 8, ((40, 2),)))),
        Gap(64, 36),
    ]


def test_parts_of_one_block_come_together():
    extents = [Extent(70, 1, Kind.DATA), Extent(71, 1, Kind.ZERO), Extent(72 - 0, 2, Kind.DATA)]
    extents += [Extent(74, 2, Kind.HOLE), Extent(76, 3, Kind.DATA)]
    assert plan(extents, 79) == [
        Gap(0, 64),
        Run(64, 15, (Cell(64, 8, ((70, 1),)), Cell(72, 7, ((72, 2), (76, 3))))),
    ]


def test_it_asks_for_no_more_extents_than_it_needs():
    asked = []

    def extents():
        for offset in range(0, 10**12, 64):
            asked.append(offset)
            yield Extent(offset, 32, Kind.DATA)
            yield Extent(offset + 32, 32, Kind.HOLE)

    steps = plan_runs(extents(), 10**12, block=B, run=R)
    assert [next(steps).offset for _ in range(3)] == [0, 32, 64]
    assert len(asked) <= 3


@given(st.lists(st.tuples(st.integers(1, 70), st.sampled_from(Kind)), max_size=12))
def test_every_byte_is_in_one_step_and_all_data_in_one_part(pieces):
    extents, size = [], 0
    for length, kind in pieces:
        extents.append(Extent(size, length, kind))
        size += length
    steps = plan(extents, size)
    cursor, found = 0, set()
    for step in steps:
        assert step.offset == cursor
        assert step.length > 0
        cursor += step.length
        for unit in getattr(step, "units", ()):
            assert unit.offset % B == 0
            assert step.offset <= unit.offset < step.offset + step.length
            assert unit.length == min(B, size - unit.offset)
            for offset, length in unit.parts:
                assert unit.offset <= offset < offset + length <= unit.offset + unit.length
                span = set(range(offset, offset + length))
                assert not span & found
                found |= span
    assert cursor == size
    assert found == {
        byte for e in extents if e.is_data for byte in range(e.offset, e.offset + e.length)
    }


def test_a_plan_from_the_middle_is_the_end_of_the_whole_one():
    extents = [Extent(30, 12, Kind.DATA), Extent(42, 50, Kind.HOLE), Extent(92, 40, Kind.DATA)]
    whole = plan(extents, 140)
    for start in (32, 64, 96, 128):
        rest = [e for e in extents if e.offset >= start]
        rest += [Extent(start, e.end - start, e.kind) for e in extents if e.offset < start < e.end]
        rest.sort(key=lambda extent: extent.offset)
        found = list(plan_runs(iter(rest), 140, block=B, run=R, start=start))
        assert found[0].offset == start
        ends = [step for step in whole if step.offset >= start]
        assert found[-len(ends) :] == ends
    assert list(plan_runs(iter([]), 140, block=B, run=R, start=64)) == [Gap(64, 76)]
    assert list(plan_runs(iter([]), 128, block=B, run=R, start=128)) == []
