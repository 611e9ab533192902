"""tar.gz: one sparse member of whole GiB, whose map is made of the source's extents."""

import gzip
import io
import random
import tarfile
from dataclasses import replace

import pytest

from imaging.convert.targz import SparseMap, TarGzSink
from imaging.deflate import LEVELS
from imaging.errors import DeviceIOError
from imaging.extent import Extent, Kind
from imaging.newfile import NewFile
from imaging.units import GiB, KiB, MiB
from tests.support.disks import pattern
from tests.support.sinks import OPTIONS, sparse_device, write_image

pytestmark = pytest.mark.exhaustive


def written(source, folder, level="fast"):
    path = folder / "a.tar.gz"
    write_image(source, path, "targz", options=replace(OPTIONS, level=level), replace=True)
    return path.read_bytes()


def member_of(file):
    """Return the one member and (offset, bytes) of its data."""
    content = gzip.decompress(file)
    assert len(content) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        (member,) = tar.getmembers()
        reader = tar.extractfile(member)
        parts = []
        for offset, length in member.sparse:
            if length:
                reader.seek(offset)
                parts.append((offset, reader.read(length)))
    return member, parts


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (512, {}),
        (512, {0: b"x"}),
        (2 * MiB, {0: pattern(2 * MiB)}),
        (2 * MiB + 512, {2 * MiB: b"x" * 512}),
        (9 * MiB + 700, {0: pattern(MiB), 5 * MiB: bytes(4 * MiB), 9 * MiB + 600: b"end"}),
        (64 * MiB, {i * 2 * MiB: b"x" for i in range(30)}),
    ],
)
def test_the_disk_is_in_the_member(size, parts, level, tmp_path):
    source = sparse_device(size, parts)
    file = written(source, tmp_path, level)
    member, found = member_of(file)
    assert (member.name, member.size) == ("disk.raw", GiB)
    disk = bytearray(size + MiB)
    for offset, data in found:
        disk[offset : offset + len(data)] = data
    assert disk == source._bytes + bytes(MiB)


def test_holes_are_not_stored(tmp_path):
    source = sparse_device(100 * MiB, {50 * MiB: b"x", 90 * MiB: b"y"})
    _, found = member_of(written(source, tmp_path))
    assert [(at, len(data)) for at, data in found] == [
        (50 * MiB, 64 * KiB),
        (90 * MiB, 64 * KiB),
    ]


def test_noise_grows_by_little(tmp_path):
    noise = random.Random(3).randbytes(4 * MiB)
    source = sparse_device(len(noise), {0: noise})
    file = written(source, tmp_path)
    assert len(file) <= len(noise) * 1.001 + 4096


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_disk_gives_the_same_file(level, tmp_path):
    source = sparse_device(9 * MiB, {0: pattern(MiB), 5 * MiB: b"text " * 90000})
    files = {written(source, tmp_path, level) for _ in range(3)}
    assert len(files) == 1


@pytest.mark.parametrize("at", [0, 2 * MiB, 3 * MiB, 5 * MiB])
def test_data_that_appear_in_a_hole_are_an_error(at, tmp_path):
    source = sparse_device(9 * MiB, {2 * MiB + 128 * KiB: b"x"})
    with NewFile(tmp_path / "a.tar.gz") as file:
        sink = TarGzSink(file, GiB, replace(OPTIONS, extents=source.extents(0, source.size)))
        unit = bytearray(2 * MiB)
        unit[at % len(unit)] = 1
        with pytest.raises(DeviceIOError, match="appeared"):
            sink.encode(at // len(unit) * len(unit), memoryview(unit))


def data(offset, length):
    return Extent(offset, length, Kind.DATA)


def test_map_is_rounded_and_joins_what_is_near():
    extents = [
        data(4096, 4096),
        Extent(8192, MiB, Kind.HOLE),
        data(8192 + MiB, 100),
        Extent(2 * MiB, 4 * MiB, Kind.ZERO),
        data(6 * MiB + 1, 1),
        data(6 * MiB + 2, 200 * KiB),
    ]
    found = SparseMap(extents)
    assert list(found) == [(0, MiB + 64 * KiB), (6 * MiB, 256 * KiB)]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, [(MiB, MiB)]),
        (2 * MiB, [(0, 2 * MiB)]),
        (4 * MiB, [(0, 128 * KiB), (2 * MiB - 64 * KiB, 64 * KiB)]),
        (6 * MiB, []),
        (8 * MiB, []),
    ],
)
def test_window_of_a_map(offset, expected):
    found = SparseMap([data(MiB, 3 * MiB + 128 * KiB), data(6 * MiB - 64 * KiB, 64 * KiB)])
    assert list(found.inside(offset, 2 * MiB)) == expected


def test_a_window_of_a_long_map_is_found():
    found = SparseMap(data(i * 4 * MiB, 4096) for i in range(100_000))
    assert list(found.inside(4 * MiB * 99_999, 2 * MiB)) == [(0, 64 * KiB)]
