"""MappedImage: reads and extents through a table, compared with the disk spelled out."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.extent import Extent, Kind
from imaging.formats.base import ImageInfo
from imaging.formats.mapped import BlockRun, MappedImage
from imaging.memory import MemoryDevice

BLOCK, BLOCKS = 16, 12
SIZE = BLOCK * BLOCKS - 5
FILE = bytes(range(1, 1 + BLOCK * BLOCKS))


class Table:
    """A table over a list of file slots, None for a hole, -1 for zeros."""

    def __init__(self, slots: list[int | None]) -> None:
        self.slots = slots

    def lookup(self, block: int, limit: int) -> BlockRun:
        slot = self.slots[block]
        if slot is None or slot < 0:
            return BlockRun(1, Kind.HOLE if slot is None else Kind.ZERO, 0)
        count = 1
        while count < limit and self.slots[block + count] == slot + count:
            count += 1
        return BlockRun(count, Kind.DATA, slot * BLOCK)


def spelled_out(slots: list[int | None]) -> bytes:
    disk = b""
    for slot in slots:
        there = slot is not None and slot >= 0
        disk += (
            FILE[slot * BLOCK : (slot + 1) * BLOCK] if there and slot is not None else bytes(BLOCK)
        )
    return disk[:SIZE]


slots = st.lists(
    st.one_of(st.none(), st.just(-1), st.integers(0, BLOCKS - 1)), min_size=BLOCKS, max_size=BLOCKS
)


@given(slots, st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_window_reads_and_tiles(places: list[int | None], one: int, two: int) -> None:
    offset, length = min(one, two), abs(one - two)
    info = ImageInfo("test", "", SIZE, len(FILE), BLOCK)
    image = MappedImage(MemoryDevice(FILE), info, Table(places))
    expected = spelled_out(places)
    assert read_bytes(image, offset, length) == expected[offset : offset + length]
    position = offset
    for extent in image.extents(offset, length):
        assert extent.offset == position
        assert extent.is_data == (expected[position] != 0)
        position = extent.end
    assert position == offset + length


class Asked(MemoryDevice):
    """Remembers how often it was asked for its extents."""

    questions = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.questions += 1
        return super().extents(offset, length)


def test_a_file_is_not_asked_for_the_holes_of_every_block() -> None:
    class Gaps:
        def lookup(self, block: int, limit: int) -> BlockRun:
            return BlockRun(1, Kind.DATA, block * 2 * 4096)  # a gap behind every block

    blocks = 1000
    file = Asked(blocks * 2 * 4096)
    file.write(0, b"data")
    image = MappedImage(file, ImageInfo("test", "", blocks * 4096, file.size, 4096), Gaps())
    assert list(image.extents(0, image.size)) == [
        Extent(0, 4096, Kind.DATA),
        Extent(4096, image.size - 4096, Kind.ZERO),
    ]
    assert file.questions == 1
