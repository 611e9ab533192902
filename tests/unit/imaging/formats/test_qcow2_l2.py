"""L2 tables with subclusters: what they say, and contradictions."""

from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    InvalidImage,
)
from imaging.extent import Extent, Kind
from imaging.formats import open_path
from imaging.formats.qcow2.device import open_qcow2
from tests.support.disks import pattern
from tests.support.qcow2_images import (
    COMPRESSED,
    SUB,
    Counting,
    Qcow2,
    deflated,
    extended,
    opened,
    refusal,
)


def test_subclusters() -> None:
    bitmap = 0b0101 | 0b1000 << 32
    disk = opened(extended(bitmaps={2: bitmap}))
    stored = pattern(SUB, 2)
    part = stored[:512] + bytes(512) + stored[1024:1536] + bytes(SUB - 1536)
    assert read_bytes(disk, 0, 4 * SUB) == pattern(SUB, 0) + bytes(SUB) + part + bytes(SUB)
    assert list(disk.extents(2 * SUB, SUB)) == [
        Extent(2 * SUB, 512, Kind.DATA),
        Extent(2 * SUB + 512, 512, Kind.HOLE),
        Extent(2 * SUB + 1024, 512, Kind.DATA),
        Extent(2 * SUB + 1536, 512, Kind.ZERO),
        Extent(2 * SUB + 2048, SUB - 2048, Kind.HOLE),
    ]


def test_whole_clusters_of_subclusters_are_one_run() -> None:
    clusters = {n: pattern(SUB, n) for n in range(4)}
    file = Counting(Qcow2(6 * SUB, clusters, cluster_bits=14, extended=True).build())
    disk = open_qcow2(file)
    read_bytes(disk, 0, 1)
    file.reads = 0
    assert read_bytes(disk, 700, 4 * SUB - 700) == b"".join(clusters.values())[700:]
    assert file.reads == 1


def test_whole_clusters_that_are_apart_in_the_file_are_no_run() -> None:
    clusters = {n: pattern(SUB, n) for n in (1, 0, 2)}
    disk = opened(Qcow2(3 * SUB, clusters, cluster_bits=14, extended=True))
    assert read_bytes(disk, 0, 3 * SUB) == b"".join(pattern(SUB, n) for n in range(3))


def test_a_compressed_cluster_is_no_absent_one_for_all_that_its_bitmap_is_0() -> None:
    image = Qcow2(3 * SUB, {2: pattern(SUB)}, {1: deflated(pattern(SUB, 1))}, cluster_bits=14)
    image.extended = True
    assert read_bytes(opened(image), 0, 3 * SUB) == bytes(SUB) + pattern(SUB, 1) + pattern(SUB)


def test_a_compressed_cluster_has_no_subclusters() -> None:
    image = Qcow2(3 * SUB, {0: pattern(SUB)}, {1: deflated(pattern(SUB, 1))}, cluster_bits=14)
    image.extended = True
    assert read_bytes(opened(image), 0, 3 * SUB) == pattern(SUB) + pattern(SUB, 1) + bytes(SUB)


SUBCLUSTERS = {
    "allocated-and-zero": ({2: 1 | 1 << 32}, {}, "bitmap"),
    "allocated-without-a-place": ({1: 1}, {}, "expected a multiple"),
    "flag-of-the-other-kind": ({}, {2: 6 * SUB | 1}, "reserved"),
    "bitmap-of-a-compressed-one": ({}, {2: COMPRESSED | 6 * SUB}, "bitmap"),
    "reserved-without-any": ({1: 0}, {1: 2}, "reserved"),
}


@pytest.mark.parametrize(
    ("bitmaps", "entries", "message"), SUBCLUSTERS.values(), ids=SUBCLUSTERS.keys()
)
def test_a_subcluster_bitmap_that_contradicts_is_refused(
    bitmaps: dict[int, int], entries: dict[int, int], message: str
) -> None:
    error = refusal(extended(bitmaps=bitmaps, entries=entries))
    assert isinstance(error, InvalidImage)
    assert message in str(error)


def test_subclusters_show_the_backing_file_too(tmp_path: Path) -> None:
    base = pattern(4 * SUB, 9)
    (tmp_path / "base.raw").write_bytes(base)
    image = extended(bitmaps={2: 1 | 2 << 32}, backing=b"base.raw", backing_format=b"raw")
    with open_path(image.write(tmp_path / "top.qcow2")) as disk:
        part = pattern(SUB, 2)[:512] + bytes(512) + base[2 * SUB + 1024 : 3 * SUB]
        whole = pattern(SUB, 0) + base[SUB : 2 * SUB] + part + base[3 * SUB :]
        assert read_bytes(disk, 0, 4 * SUB) == whole
