"""monolithicSparse images: both directories lead to the disk, and nothing that was not written takes room."""

import pytest

from imaging.convert.vmdk_sparse import MonolithicSparseSink
from imaging.errors import DiskTooLarge
from imaging.formats.vmdk import build as vmdk_build
from imaging.newfile import NewFile
from imaging.units import GiB, KiB, MiB, TiB
from tests.support.disks import pattern
from tests.support.sinks import OPTIONS, sparse_device, write_image
from tests.support.vmdk_walk import Header, grain_places, read_sparse


def written(source, folder):
    write_image(source, folder / "a", "vmdk:monolithicSparse")
    return (folder / "a").read_bytes()


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (512, {}),
        (512, {0: b"x" * 512}),
        (64 * KiB, {0: b"x" * 65536}),
        (64 * KiB + 512, {65536: b"x" * 512}),
        (32 * MiB + 512, {32 * MiB: b"x" * 512}),
        (70 * MiB, {0: pattern(3 * MiB), 69 * MiB: b"end"}),
        (5 * MiB + 1536, {MiB + 4096: pattern(90000), MiB + 200 * KiB: b"y", 5 * MiB + 1000: b"z"}),
        (2 * MiB, dict.fromkeys(range(0, 2 * MiB, 12 * KiB), b"part")),  # many parts of a grain
    ],
)
def test_the_disk_is_in_the_file(size, parts, tmp_path):
    source = sparse_device(size, parts)
    assert read_sparse(written(source, tmp_path)) == source._bytes


def test_writes_in_any_order_make_the_same_disk(tmp_path):
    disk = pattern(3 * MiB)
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, 40 * MiB, OPTIONS)
        sink.write(39 * MiB, memoryview(disk[:MiB]))
        sink.write(MiB + 512 * KiB, memoryview(disk[: 512 * KiB]))
        sink.write(MiB, memoryview(disk[: 512 * KiB]))
        sink.write(2 * MiB + 40 * KiB, memoryview(disk[: 100 * KiB]))  # not at a grain's border
        sink.write(2 * MiB, memoryview(disk[: 40 * KiB]))
        sink.finish()
        file.commit()
    found = read_sparse((tmp_path / "a").read_bytes())
    assert found[39 * MiB :] == disk[:MiB]
    assert found[MiB : 2 * MiB] == disk[: 512 * KiB] * 2
    assert found[2 * MiB : 2 * MiB + 140 * KiB] == disk[: 40 * KiB] + disk[: 100 * KiB]
    assert not any(found[2 * MiB + 140 * KiB : 39 * MiB])


def test_grains_without_a_write_are_not_in_the_file(tmp_path):
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, 4 * GiB, OPTIONS)
        sink.write(GiB, memoryview(b"x" * 65536))
        sink.finish()
        file.commit()
    content = (tmp_path / "a").read_bytes()
    assert len(content) == (Header.of(content).overhead + 128) * 512


def test_tables_that_end_where_the_grains_begin_spare_the_first_grain(tmp_path):
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, 13 * 32 * MiB, OPTIONS)
        sink.write(13 * 32 * MiB - 65536, memoryview(pattern(65536)))
        sink.finish()
        file.commit()
    content = (tmp_path / "a").read_bytes()
    header = Header.of(content)
    assert header.directory + 1 + 13 * 4 == header.overhead - 1
    assert grain_places(content, header.capacity, header.directory) == {6655: header.overhead}
    assert content[header.overhead * 512 :] == pattern(65536)


def test_neighbours_are_written_at_once(tmp_path):
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, 40 * MiB, OPTIONS)
        writes = []
        file.write = lambda offset, data: writes.append((offset, len(data)))
        sink.write(MiB, memoryview(pattern(512 * KiB)))
        sink.write(2 * MiB, memoryview(pattern(512 * KiB)))
        assert writes == [(64 * KiB, 512 * KiB), (64 * KiB + 512 * KiB, 512 * KiB)]


def test_until_it_is_finished_it_is_no_vmdk(tmp_path):
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, MiB, OPTIONS)
        sink.write(0, memoryview(b"x" * 512))
        assert (tmp_path / "a.partial").read_bytes()[:4] == bytes(4)


def test_64_tib_with_little_data_write_little(tmp_path):
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, 64 * TiB, OPTIONS)
        sink.write(64 * TiB - 512 * KiB, memoryview(pattern(512 * KiB)))
        sink.finish()
        file.commit()
    found = (tmp_path / "a").stat()
    assert found.st_blocks * 512 < 20 * MiB  # two directories of 8 MiB


def test_a_file_that_its_tables_cannot_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vmdk_build, "MAX_SECTORS", 256)
    with NewFile(tmp_path / "a") as file:
        sink = MonolithicSparseSink(file, MiB, OPTIONS)
        sink.write(0, memoryview(b"x" * 65536))
        with pytest.raises(DiskTooLarge, match="2 TiB"):
            sink.write(65536, memoryview(b"x" * 65536))
