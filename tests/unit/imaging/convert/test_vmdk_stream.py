"""streamOptimized images: two walks over the file find the disk, and nothing that is zeros is in it."""

import random
from dataclasses import replace

import pytest

from imaging.convert.vmdk_stream import StreamOptimizedSink
from imaging.deflate import LEVELS
from imaging.errors import DiskTooLarge
from imaging.formats.vmdk import build as vmdk_build
from imaging.newfile import NewFile
from imaging.units import GiB, KiB, MiB, TiB
from tests.support.sinks import OPTIONS, sparse_device, write_image
from tests.support.vmdk_walk import Header, grain_places, read_stream

pytestmark = pytest.mark.exhaustive

NOISE = random.Random(3).randbytes(3 * MiB)


def written(source, folder, level="fast"):
    path = folder / "a.vmdk"
    options = replace(OPTIONS, level=level)
    write_image(source, path, "vmdk:streamOptimized", options=options, replace=True)
    return path.read_bytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (512, {}),
        (512, {0: b"x"}),
        (64 * KiB, {0: b"x" * 65536}),
        (64 * KiB + 512, {65536: b"x" * 512}),
        (32 * MiB, {32 * MiB - 512: b"x" * 512}),
        (32 * MiB + 512, {32 * MiB: b"x" * 512}),
        (70 * MiB, {0: NOISE, 20 * MiB: bytes(MiB), 69 * MiB: b"end"}),
        (5 * MiB + 1536, {MiB + 4096: b"text " * 90000, 5 * MiB + 1000: b"y"}),
    ],
)
def test_the_disk_is_in_the_file(size, parts, level, tmp_path):
    source = sparse_device(size, parts)
    file = written(source, tmp_path, level)
    assert read_stream(file) == source._bytes


def test_a_disk_of_zeros_has_no_grain_and_no_table(tmp_path):
    source = sparse_device(40 * MiB, {MiB: bytes(9 * MiB)})
    file = written(source, tmp_path)
    assert len(file) == (128 + 2 + 2 + 1) * 512


def test_only_grains_with_data_are_there_each_whole(tmp_path):
    source = sparse_device(
        40 * MiB + 512, {MiB: b"x", 35 * MiB: b"y" * 70000, 40 * MiB: b"z" * 512}
    )
    file = written(source, tmp_path)
    footer = Header.of(file[-1024:])
    assert list(grain_places(file, footer.capacity, footer.directory)) == [16, 560, 561, 640]
    assert read_stream(file) == source._bytes


def test_noise_grows_by_little(tmp_path):
    file = written(sparse_device(len(NOISE), {0: NOISE}), tmp_path)
    assert len(file) <= len(NOISE) * 1.01 + 128 * 1024


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_disk_gives_the_same_file(level, tmp_path):
    source = sparse_device(9 * MiB, {0: NOISE, 5 * MiB: b"text " * 90000})
    files = {written(source, tmp_path, level) for _ in range(3)}
    assert len(files) == 1


def test_until_it_is_finished_it_is_no_vmdk(tmp_path):
    with NewFile(tmp_path / "a.vmdk") as file:
        source = sparse_device(MiB, {0: b"x"})
        sink = StreamOptimizedSink(file, source.size, OPTIONS)
        sink.append(0, sink.encode(0, memoryview(source._bytes)))
        assert (tmp_path / "a.vmdk.partial").read_bytes()[:4] == bytes(4)


def test_two_tib_of_nothing_cost_the_directory(tmp_path):
    with NewFile(tmp_path / "a.vmdk") as file:
        sink = StreamOptimizedSink(file, 2 * TiB, OPTIONS)
        sink.append(2 * TiB - MiB, sink.encode(2 * TiB - MiB, memoryview(b"x" * MiB)))
        sink.finish()
        file.commit()
    content = (tmp_path / "a.vmdk").read_bytes()
    footer = Header.of(content[-1024:])
    assert footer.capacity == 2 * TiB // 512
    assert len(grain_places(content, footer.capacity, footer.directory)) == 16
    assert len(content) < MiB


def test_a_file_that_its_tables_cannot_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vmdk_build, "MAX_SECTORS", 1000)
    with NewFile(tmp_path / "a.vmdk") as file:
        sink = StreamOptimizedSink(file, 2 * GiB, OPTIONS)
        with pytest.raises(DiskTooLarge, match="2 TiB"):
            sink.append(0, sink.encode(0, memoryview(NOISE[: 2 * MiB])))
