"""Compressed clusters of a qcow2: both methods, any cluster size, few reads, and damage."""

from typing import Any

import pytest
from backports import zstd

from imaging.device import read_bytes
from imaging.errors import InvalidImage
from imaging.formats.qcow2.device import open_qcow2
from tests.support.disks import MiB, pattern
from tests.support.qcow2_images import (
    COMPRESSED,
    C,
    Counting,
    Qcow2,
    content,
    deflated,
    opened,
    refusal,
)


def test_compressed_neighbours_are_one_read() -> None:
    packed = {cluster: deflated(content(cluster)) for cluster in range(8)}
    file = Counting(Qcow2(8 * C, packed=packed).build())
    disk = open_qcow2(file)
    read_bytes(disk, 0, 8 * C)
    file.reads = 0
    assert read_bytes(disk, 0, 8 * C) == b"".join(map(content, range(8)))
    assert file.reads == 1


def test_compressed_clusters_that_are_far_apart_are_not_read_with_all_that_lies_between() -> None:
    packed, far = deflated(content(1)), 3 * MiB
    entry = COMPRESSED | (len(packed) // 512 + 1) << 58 | far
    image = Qcow2(3 * C, packed={0: packed}, entries={1: entry}, parts={far: packed})
    image.file_size = far + 2 * C
    file = Counting(image.build())
    disk = open_qcow2(file)
    read_bytes(disk, 2 * C, 1)
    file.reads = 0
    assert read_bytes(disk, 0, 2 * C) == content(1) * 2
    assert file.reads == 2


def test_a_few_clusters_of_which_a_part_was_read_are_kept() -> None:
    packed = {cluster: deflated(content(cluster)) for cluster in range(6)}
    file = Counting(Qcow2(6 * C, packed=packed).build())
    disk = open_qcow2(file)
    read_bytes(disk, 0, 1)
    for order, expected in ((range(4), 3), (range(4), 0), ((4, 5), 2), ((0, 1), 2)):
        file.reads = 0
        for cluster in order:
            assert read_bytes(disk, cluster * C + 9, 99) == content(cluster)[9:108]
        assert file.reads == expected


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("compression", [0, 1], ids=["deflate", "zstd"])
def test_compressed_clusters(bits: int, compression: int) -> None:
    size = 1 << bits
    pack = zstd.compress if compression else deflated
    contents = {0: pattern(size, 1), 3: b"text " * (size // 5) + bytes(size % 5), 4: bytes(size)}
    packed = {cluster: pack(data) for cluster, data in contents.items()}
    stored = {1: pattern(size, 7)}
    image = Qcow2(6 * size, stored, packed, cluster_bits=bits, compression=compression)
    expected = b"".join((contents | stored).get(n, bytes(size)) for n in range(6))
    disk = opened(image)
    assert read_bytes(disk, 0, 6 * size) == expected
    assert read_bytes(disk, 3 * size + 5, size) == expected[3 * size + 5 : 4 * size + 5]


@pytest.mark.parametrize("compression", [0, 1], ids=["deflate", "zstd"])
@pytest.mark.parametrize(
    "change",
    [lambda data: data[: len(data) // 2], lambda data: b"\xff" * len(data)],
    ids=["cut", "garbage"],
)
def test_a_damaged_compressed_cluster_is_named(compression: int, change: Any) -> None:
    pack = zstd.compress if compression else deflated
    image = Qcow2(2 * C, packed={1: change(pack(content(1)))}, compression=compression)
    error = refusal(image)
    assert isinstance(error, InvalidImage)
    assert f"cluster at file offset {image.data_offset} is damaged" in str(error)
    assert error.fields["offset"] == image.data_offset


@pytest.mark.parametrize("compression", [0, 1], ids=["deflate", "zstd"])
def test_a_compressed_cluster_that_is_too_short_is_damage(compression: int) -> None:
    pack = zstd.compress if compression else deflated
    image = Qcow2(2 * C, packed={1: pack(bytes(C - 1))}, compression=compression)
    assert f"inflates to {C - 1} bytes, expected {C}" in str(refusal(image))


def test_a_bomb_makes_no_more_than_a_cluster() -> None:
    image = Qcow2(2 * C, packed={1: deflated(bytes(4 * MiB))[: 2 * C]})
    assert read_bytes(opened(image), 0, 2 * C) == bytes(2 * C)
    image = Qcow2(2 * C, packed={1: zstd.compress(bytes(4 * MiB))}, compression=1)
    assert "does not end with the cluster" in str(refusal(image))


def test_a_zstd_frame_may_not_ask_for_a_huge_window() -> None:
    parameters = zstd.CompressionParameter
    options = {parameters.window_log: 27, parameters.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    data = packer.compress(content(1)) + packer.flush()
    image = Qcow2(2 * C, packed={1: data}, compression=1)
    assert "is damaged" in str(refusal(image))
