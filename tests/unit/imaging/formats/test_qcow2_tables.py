"""L1 and L2 tables of a qcow2: every lie is refused, at open or where the table is met; and what is kept of them."""

import struct
from contextlib import closing
from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    BlockOverlap,
    ImagingError,
    InvalidImage,
    Truncated,
)
from imaging.extent import Extent, Kind
from imaging.filedev import FileDevice
from imaging.formats.qcow2.device import open_qcow2
from tests.support.disks import pattern
from tests.support.qcow2_images import (
    COMPRESSED,
    COPIED,
    TABLE,
    C,
    Counting,
    Qcow2,
    content,
    opened,
    refusal,
    small,
)

ENTRIES = {
    "unaligned": (6 * C + 512, InvalidImage, "expected a multiple of 4096"),
    "reserved-low": (6 * C | 2, InvalidImage, "without reserved bits"),
    "reserved-high": (6 * C | 1 << 56, InvalidImage, "without reserved bits"),
    "no-place": (COPIED, InvalidImage, "expected a multiple"),
    "behind-the-end": (7 * C, Truncated, "cluster 1 ends at file offset 32768"),
    "far-behind-the-end": (1 << 55, Truncated, "but the file has 28672 bytes"),
    "header": (COMPRESSED | 100, BlockOverlap, "overlaps the header"),
    "refcount-table": (1 * C, BlockOverlap, "overlaps the refcount table"),
    "l1-table": (3 * C, BlockOverlap, "overlaps the L1 table"),
    "l2-table": (4 * C, BlockOverlap, "overlaps an L2 table"),
    "compressed-behind-the-end": (COMPRESSED | 7 * C, Truncated, "compressed cluster 1"),
    "compressed-l2-table": (COMPRESSED | (5 * C - 3), BlockOverlap, "an L2 table"),
    "compressed-runs-into-one": (COMPRESSED | 3 << 58 | (4 * C - 700), BlockOverlap, "L2 table"),
    "compressed-garbage": (COMPRESSED | 5 * C, InvalidImage, "is damaged"),
}


@pytest.mark.parametrize(("entry", "kind", "message"), ENTRIES.values(), ids=ENTRIES.keys())
def test_a_lie_in_an_l2_table_is_refused_when_the_table_is_met(
    entry: int, kind: type[ImagingError], message: str
) -> None:
    error = refusal(small(entries={1: entry}))
    assert isinstance(error, kind)
    assert message in str(error)
    assert error.fields["offset"] is not None


def test_neighbours_of_which_the_last_is_behind_the_end_are_refused() -> None:
    image = Qcow2(8 * C, {0: content(0), 1: content(1)})
    image.file_size = image.data_offset + C
    assert isinstance(refusal(image), Truncated)


def test_a_compressed_cluster_may_not_begin_behind_the_end_in_the_last_cluster() -> None:
    image = small(entries={1: COMPRESSED | 6 * C + 600})
    image.file_size = 6 * C + 600
    assert isinstance(refusal(image), Truncated)


def test_a_lie_in_an_l2_table_spoils_all_that_the_table_covers_and_nothing_else() -> None:
    image = Qcow2(2 * TABLE, {0: content(0), 512: content(1)}, entries={513: 7 * C + 512})
    disk = opened(image)
    assert read_bytes(disk, 0, C) == content(0)
    for _ in range(2):
        with pytest.raises(InvalidImage):
            read_bytes(disk, TABLE, C)
        with pytest.raises(InvalidImage):
            list(disk.extents(0, disk.size))


def test_clusters_that_share_a_place_are_no_damage() -> None:
    assert read_bytes(opened(small(entries={1: 5 * C})), 0, 2 * C) == content(0) * 2


def test_version_2_knows_no_flag_for_zeros() -> None:
    assert "reserved" in str(refusal(small(version=2, entries={1: 1})))


L1_ENTRIES = {
    "unaligned": (4 * C + 512, InvalidImage, "expected a positive multiple"),
    "reserved": (4 * C | 1, InvalidImage, "reserved"),
    "reserved-high": (4 * C | COMPRESSED, InvalidImage, "reserved"),
    "no-place": (COPIED, InvalidImage, "positive"),
    "behind-the-end": (1 << 54, Truncated, "L2 table of L1 entry 1"),
    "cut": (7 * C, Truncated, "L2 table of L1 entry 1"),
    "the-refcount-table": (C, BlockOverlap, "overlaps the refcount table"),
    "itself": (3 * C, BlockOverlap, "overlaps the L1 table"),
    "shared": (4 * C, BlockOverlap, "two L1 entries share"),
}


@pytest.mark.parametrize(("entry", "kind", "message"), L1_ENTRIES.values(), ids=L1_ENTRIES.keys())
def test_a_lie_in_the_l1_table_is_refused_when_the_image_is_opened(
    entry: int, kind: type[ImagingError], message: str
) -> None:
    image = Qcow2(2 * TABLE, {0: content(0), 2: content(2)}, l1={1: entry})
    with pytest.raises(kind, match=message) as caught:
        opened(image)
    assert caught.value.fields["offset"] is not None


def test_data_that_are_an_l2_table_of_another_part_are_found() -> None:
    image = Qcow2(2 * TABLE, {0: content(0), 512: content(1)})
    image.entries = {1: image.table_offset(1)}
    assert isinstance(refusal(image), BlockOverlap)


def test_an_l1_table_behind_the_end_is_refused() -> None:
    image = small(fields={40: struct.pack(">Q", 1 << 40)})
    with pytest.raises(Truncated, match="the L1 table"):
        opened(image)


def test_the_biggest_disk_opens_in_the_memory_of_its_tables() -> None:
    image = Qcow2(64 << 40, cluster_bits=16)
    size, parts = image.layout()
    file = Counting(size)
    for offset, data in parts.items():
        file.write(offset, data)
    disk = open_qcow2(file)
    assert list(disk.extents(0, disk.size)) == [Extent(0, 64 << 40, Kind.HOLE)]
    assert file.reads < 20


def test_more_l2_tables_than_are_kept_are_read_again(tmp_path: Path) -> None:
    clusters = {number << 18: b"%d" % number for number in range(8)}  # one for each table
    path = Qcow2(8 << 39, clusters, cluster_bits=21).write(tmp_path / "big.qcow2")

    class CountingFile(FileDevice):
        reads = 0

        def read_into(self, offset: int, buffer: memoryview) -> None:
            self.reads += 1
            super().read_into(offset, buffer)

    with closing(CountingFile(path)) as file:
        disk = open_qcow2(file)
        orders = (range(8), range(8), (4, 0, 4))  # the one used last stays
        for order, expected in zip(orders, (16, 16, 4), strict=True):
            file.reads = 0
            assert [read_bytes(disk, n << 39, 1) for n in order] == [b"%d" % n for n in order]
            assert file.reads == expected


def test_stretches_without_tables_end_where_the_next_table_begins() -> None:
    covered, first = 64 * 512, 16384  # of an L2 table; of the L1 entries read at a time
    cluster = (first + 50) * 64
    image = Qcow2((first + 60) * covered, {cluster: pattern(512)}, cluster_bits=9)
    disk = opened(image)
    for start in (0, 100 * covered, (first + 49) * covered + 7):
        hole, data, rest = disk.extents(start, disk.size - start)
        assert (hole.offset, data.offset, data.is_data) == (start, cluster * 512, True)
        assert rest.end == disk.size


def test_a_disk_of_several_tables_reads_across_their_borders() -> None:
    last = 3 * 512 - 1
    disk = opened(Qcow2(3 * TABLE, {511: content(1), 1024: content(2), last: content(3)}))
    assert read_bytes(disk, TABLE - C - 5, C + 10) == bytes(5) + content(1) + bytes(5)
    assert read_bytes(disk, 2 * TABLE, C) == content(2)
    assert read_bytes(disk, 3 * TABLE - C, C) == content(3)
    assert [extent for extent in disk.extents(0, disk.size) if extent.is_data] == [
        Extent(TABLE - C, C, Kind.DATA),
        Extent(2 * TABLE, C, Kind.DATA),
        Extent(3 * TABLE - C, C, Kind.DATA),
    ]
