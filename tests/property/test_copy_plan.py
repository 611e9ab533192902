"""Property: the plan covers every byte of the disk exactly once, and every byte of data lies in a chunk's ranges."""

from hypothesis import given
from hypothesis import strategies as st

from agent.transfer.plan import Chunk, Gap, plan_chunks
from imaging.extent import Extent, Kind

CHUNK = 64


@st.composite
def disks(draw):
    lengths = draw(st.lists(st.integers(1, 200), min_size=1, max_size=30))
    kinds = draw(
        st.lists(st.sampled_from(list(Kind)), min_size=len(lengths), max_size=len(lengths))
    )
    extents, offset = [], 0
    for length, kind in zip(lengths, kinds, strict=True):
        extents.append(Extent(offset, length, kind))
        offset += length
    return extents, offset


@given(disks())
def test_cells_tile_the_disk_on_the_grid(disk):
    extents, size = disk
    cursor = 0
    for item in plan_chunks(extents, size, CHUNK):
        assert item.offset == cursor
        assert item.offset % CHUNK == 0
        assert item.length > 0
        cursor += item.length
    assert cursor == size


@given(disks())
def test_chunks_hold_exactly_the_data(disk):
    extents, size = disk
    planned = set()
    for item in plan_chunks(extents, size, CHUNK):
        if isinstance(item, Chunk):
            assert item.ranges
            assert item.data_bytes == sum(length for _, length in item.ranges)
            for offset, length in item.ranges:
                assert item.offset <= offset
                assert offset + length <= item.offset + item.length
                planned.update(range(offset, offset + length))
        else:
            assert isinstance(item, Gap)
    data = {b for e in extents if e.is_data for b in range(e.offset, e.end)}
    assert planned == data
