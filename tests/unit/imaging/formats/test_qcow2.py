"""qcow2: what is read, and that every lie in header, tables and clusters is refused with its cause."""

import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    DeviceClosed,
    FileMissing,
    InvalidImage,
    ParentNeeded,
    ReferenceRefused,
    Truncated,
    UnsupportedImage,
)
from imaging.extent import Extent, Kind
from imaging.formats import open_image, open_path
from imaging.formats.qcow2.device import open_qcow2
from imaging.memory import MemoryDevice
from imaging.siblings import LocalFolder
from tests.support.disks import KiB, fixed_vhd, pattern
from tests.support.qcow2_images import (
    COMPRESSED,
    COPIED,
    C,
    Counting,
    Qcow2,
    content,
    deflated,
    opened,
    refusal,
    small,
)


def test_reads_clusters_wherever_they_lie() -> None:
    disk = opened(Qcow2(4 * C, {3: content(3), 0: content(0), 1: content(1)}))
    assert read_bytes(disk, 0, 4 * C) == content(0) + content(1) + bytes(C) + content(3)


def test_describes_itself() -> None:
    info = opened(small()).info
    assert (info.format, info.subformat, info.virtual_size) == ("qcow2", "v3", 8 * C)
    assert (info.block_size, info.file_size, info.dirty) == (C, 7 * C, False)
    assert (info.parent, info.warnings) == (None, ())
    assert opened(small(version=2)).info.subformat == "v2"


def test_extents_tell_data_zeros_and_holes_apart() -> None:
    image = Qcow2(8 * C + 512, {0: content(0), 1: content(1)}, {4: deflated(content(4))})
    image.entries = {2: 1, 3: (1 << 40) | COPIED | 1}
    assert list(opened(image).extents(512, 8 * C)) == [
        Extent(512, 2 * C - 512, Kind.DATA),
        Extent(2 * C, 2 * C, Kind.ZERO),
        Extent(4 * C, C, Kind.DATA),
        Extent(5 * C, 3 * C + 512, Kind.HOLE),
    ]


def test_the_place_of_a_cluster_of_zeros_is_never_followed() -> None:
    disk = opened(small(entries={0: (1 << 50) | COPIED | 1}))
    assert not any(read_bytes(disk, 0, C))


def test_a_hole_of_the_file_inside_a_cluster_reads_as_zeros_for_certain() -> None:
    image = Qcow2(64 * KiB, {0: pattern(64 * KiB)}, cluster_bits=16)
    size, parts = image.layout()
    file = MemoryDevice(size)
    for offset, data in parts.items():
        file.write(offset, data[: 8 * KiB])
    assert list(open_qcow2(file).extents(0, 64 * KiB)) == [
        Extent(0, 8 * KiB, Kind.DATA),
        Extent(8 * KiB, 56 * KiB, Kind.ZERO),
    ]


def test_neighbours_in_the_file_are_one_read() -> None:
    file = Counting(Qcow2(8 * C, {cluster: content(cluster) for cluster in range(8)}).build())
    disk = open_qcow2(file)
    read_bytes(disk, 0, 1)
    file.reads = 0
    assert len(read_bytes(disk, 100, 8 * C - 200)) == 8 * C - 200
    assert file.reads == 1


# --- the end of the file


def test_a_file_may_end_inside_its_last_cluster() -> None:
    image = small()
    image.file_size = image.data_offset + C + 700
    disk = opened(image)
    assert read_bytes(disk, 2 * C, C) == content(2)[:700] + bytes(C - 700)
    assert read_bytes(disk, 2 * C + 800, 100) == bytes(100)
    assert list(disk.extents(2 * C, C)) == [
        Extent(2 * C, 700, Kind.DATA),
        Extent(2 * C + 700, C - 700, Kind.ZERO),
    ]


def test_a_cluster_behind_the_end_of_the_file_is_damage_and_no_zeros() -> None:
    image = small()
    image.file_size = image.data_offset + C
    error = refusal(image)
    assert isinstance(error, Truncated)
    assert "cluster 2 ends" in str(error)


# --- backing files


def chain(folder: Path, **fields: Any) -> Path:
    """Write base.raw (four clusters and a bit) and top.qcow2 (eight clusters, two its own)."""
    (folder / "base.raw").write_bytes(pattern(4 * C + 512, 9))
    fields = {"backing": b"base.raw", "backing_format": b"raw"} | fields
    return small(**fields).write(folder / "top.qcow2")


def test_a_backing_file_shows_through_and_ends_in_zeros(tmp_path: Path) -> None:
    base = pattern(4 * C + 512, 9)
    with open_path(chain(tmp_path, entries={3: 1})) as disk:
        expected = content(0) + base[C : 2 * C] + content(2) + bytes(C) + base[4 * C :]
        assert read_bytes(disk, 0, 8 * C) == expected.ljust(8 * C, b"\0")
        assert disk.info.parent == "base.raw"
        assert list(disk.extents(2 * C, 6 * C)) == [
            Extent(2 * C, C, Kind.DATA),
            Extent(3 * C, C, Kind.ZERO),
            Extent(4 * C, 512, Kind.DATA),
            Extent(4 * C + 512, 4 * C - 512, Kind.HOLE),
        ]


def test_one_pass_over_the_backing_file_lists_its_holes(tmp_path: Path) -> None:
    """Every second cluster is the backing file's: its extents are asked for once all the same."""
    clusters = {n: content(n) for n in range(0, 64, 2)}
    image = Qcow2(64 * C, clusters, backing=b"base", backing_format=b"raw")
    asked = []

    class Base(MemoryDevice):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            asked.append((offset, length))
            return super().extents(offset, length)

    class BaseFolder:
        def open(self, name: str) -> MemoryDevice:
            return Base(pattern(48 * C))

    disk = open_image(MemoryDevice(image.build()), format="qcow2", siblings=BaseFolder())
    kinds = [extent.kind for extent in disk.extents(0, disk.size)]
    assert kinds == [Kind.DATA] + [Kind.HOLE, Kind.DATA] * 7 + [Kind.HOLE]
    assert asked == [(0, 48 * C)]


def test_a_backing_file_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "base.img").write_bytes(fixed_vhd(pattern(8 * C, 5)))
    with open_path(chain(tmp_path, backing=b"base.img", backing_format=b"vpc")) as disk:
        assert read_bytes(disk, C, C) == pattern(8 * C, 5)[C : 2 * C]


def test_a_raw_backing_file_is_never_probed(tmp_path: Path) -> None:
    path, nested = chain(tmp_path), small().build()
    (tmp_path / "base.raw").write_bytes(nested)
    with open_path(path) as disk:
        assert read_bytes(disk, 3 * C, C) == nested[3 * C : 4 * C]


def test_a_backing_file_of_unknown_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = chain(tmp_path, backing=b"b $(x).raw", backing_format=b"")
    (tmp_path / "b $(x).raw").write_bytes(bytes(C))
    with pytest.raises(ReferenceRefused, match="never guesses") as caught, open_path(path):
        pass
    assert f"qemu-img rebase -u -f qcow2 -b {shlex.quote('b $(x).raw')} -F" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        b"../base.raw",
        b"/etc/passwd",
        b"./base.raw",
        b"nbd:localhost:1",
        b'json:{"driver":"raw"}',
        b"base\xff.raw",
        b"base\n.raw",
        b"..",
        b"a" * 256,
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["backing", "data_file"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes, kind: str) -> None:
    path = chain(tmp_path, **{"backing": b"", "backing_format": b"raw", kind: name})
    with pytest.raises(ReferenceRefused), open_path(path):
        pass


def test_a_symbolic_link_is_no_backing_file(tmp_path: Path) -> None:
    path = chain(tmp_path, backing=b"link")
    (tmp_path / "link").symlink_to(tmp_path / "base.raw")
    with pytest.raises(ReferenceRefused), open_path(path):
        pass


def test_a_backing_format_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = chain(tmp_path, backing_format=b"qed")
    with pytest.raises(UnsupportedImage, match="has the format 'qed'"), open_path(path):
        pass


def test_a_backing_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ParentNeeded, match="'gone' is not beside"),
        open_path(chain(tmp_path, backing=b"gone")),
    ):
        pass


def test_without_a_folder_a_backing_file_is_needed() -> None:
    with pytest.raises(ParentNeeded):
        opened(small(backing=b"base.raw", backing_format=b"raw"))


@pytest.mark.parametrize("kind", ["backing", "data_file"])
def test_an_image_that_names_itself_is_a_loop(tmp_path: Path, kind: str) -> None:
    path = chain(tmp_path, **{"backing": b"", "backing_format": b"qcow2", kind: b"top.qcow2"})
    with pytest.raises(InvalidImage, match="comes back"), open_path(path):
        pass


def test_a_loop_of_two_images_ends(tmp_path: Path) -> None:
    path = chain(tmp_path, backing=b"base", backing_format=b"qcow2")
    small(backing=b"top.qcow2", backing_format=b"qcow2").write(tmp_path / "base")
    with pytest.raises(InvalidImage, match="comes back"), open_path(path):
        pass


def test_a_chain_may_have_32_images_and_no_more(tmp_path: Path) -> None:
    for number in range(33):
        name = {"backing": b"%d" % (number - 1), "backing_format": b"qcow2"} if number else {}
        image = Qcow2(40 * C, {number: content(number)}, **name)  # type: ignore[arg-type]
        image.write(tmp_path / str(number))
    with open_path(tmp_path / "31", format="qcow2") as disk:
        assert read_bytes(disk, 0, 32 * C) == b"".join(map(content, range(32)))
    with (
        pytest.raises(InvalidImage, match="more than 32"),
        open_path(tmp_path / "32", format="qcow2"),
    ):
        pass


def test_what_is_wrong_with_a_backing_file_names_it(tmp_path: Path) -> None:
    path = chain(tmp_path, backing_format=b"qcow2")
    expected = r"backing file 'base.raw': .* it is no qcow2"
    with pytest.raises(InvalidImage, match=expected) as caught, open_path(path):
        pass
    assert caught.value.fields["parent"] == "base.raw"


@pytest.mark.parametrize("entry", [7 * C + 512, COMPRESSED | 5 * C], ids=["table", "compressed"])
def test_damage_that_is_met_when_reading_names_the_file_of_the_chain(
    tmp_path: Path, entry: int
) -> None:
    path = chain(tmp_path, backing=b"mid", backing_format=b"qcow2")
    small(entries={1: entry}).write(tmp_path / "mid")
    with open_path(path) as disk, pytest.raises(InvalidImage, match=r"^mid: the ") as caught:
        read_bytes(disk, 0, disk.size)
    assert caught.value.fields["path"] == "mid"


class Folder(LocalFolder):
    """Remembers what it opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files: list[Any] = []

    def open(self, name: str) -> Any:
        self.files.append(super().open(name))
        return self.files[-1]


def is_closed(device: Any) -> bool:
    try:
        read_bytes(device, 0, 1)
    except DeviceClosed:
        return True
    return False


def test_the_files_beside_it_are_closed_with_the_image(tmp_path: Path) -> None:
    chain(tmp_path, backing=b"mid", backing_format=b"qcow2")
    small(backing=b"base.raw", backing_format=b"raw").write(tmp_path / "mid")
    folder, top = Folder(tmp_path), (tmp_path / "top.qcow2").read_bytes()
    with closing(open_image(MemoryDevice(top), name="top.qcow2", siblings=folder)):
        assert [is_closed(file) for file in folder.files] == [False, False]
    assert [is_closed(file) for file in folder.files] == [True, True]


def test_the_files_beside_it_are_closed_when_opening_fails(tmp_path: Path) -> None:
    chain(tmp_path, backing=b"mid", backing_format=b"qcow2")
    small(backing=b"base.raw", backing_format=b"qcow2").write(tmp_path / "mid")
    folder, top = Folder(tmp_path), (tmp_path / "top.qcow2").read_bytes()
    with pytest.raises(InvalidImage):
        open_image(MemoryDevice(top), name="top.qcow2", siblings=folder)
    assert [is_closed(file) for file in folder.files] == [True, True]


# --- external data files


@pytest.mark.parametrize("autoclear", [0, 2], ids=["data-file", "raw-data-file"])
def test_clusters_in_a_data_file(tmp_path: Path, autoclear: int) -> None:
    data = bytearray(8 * C)
    data[: 3 * C] = content(0) + bytes(C) + content(2)
    (tmp_path / "disk.data").write_bytes(data)
    path = small(data_file=b"disk.data", autoclear=autoclear).write(tmp_path / "top.qcow2")
    with open_path(path) as disk:
        assert read_bytes(disk, 0, 8 * C) == bytes(data)
        assert next(disk.extents(0, disk.size)) == Extent(0, C, Kind.DATA)


DATA_FILE_LIES = {
    "elsewhere": ({1: 2 * C | COPIED}, "same place as in the disk"),
    "compressed": ({1: COMPRESSED | C}, "no compressed cluster"),
    "behind-its-end": ({4: 4 * C | COPIED}, "cluster 4 ends"),
}


@pytest.mark.parametrize(("entries", "message"), DATA_FILE_LIES.values(), ids=DATA_FILE_LIES.keys())
def test_lies_about_a_data_file(tmp_path: Path, entries: dict[int, int], message: str) -> None:
    (tmp_path / "disk.data").write_bytes(bytes(3 * C))
    path = small(data_file=b"disk.data", entries=entries).write(tmp_path / "top.qcow2")
    with open_path(path) as disk, pytest.raises(InvalidImage, match=message):
        read_bytes(disk, 0, 8 * C)


def test_a_data_file_without_a_name_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImage, match="does not name it"):
        opened(small(features=4))
    path = small(data_file=b"gone").write(tmp_path / "top.qcow2")
    with pytest.raises(FileMissing), open_path(path):
        pass


# --- warnings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 1}, "did not close"),
        ({"features": 2}, "corrupt"),
        ({"snapshots": 2}, "2 internal snapshots"),
        ({"size": 8 * C - 100}, "no multiple of 512"),
    ],
    ids=["dirty", "corrupt", "snapshots", "odd-size"],
)
def test_doubts_are_warnings(fields: dict[str, int], message: str) -> None:
    image = small()
    for name, value in fields.items():
        setattr(image, name, value)
    info = opened(image).info
    assert message in info.warnings[0]
    assert info.dirty is (fields == {"features": 1})


def test_warnings_of_a_backing_file_name_it(tmp_path: Path) -> None:
    path = chain(tmp_path, backing=b"mid", backing_format=b"qcow2")
    small(features=2).write(tmp_path / "mid")
    with open_path(path) as disk:
        assert disk.info.warnings[0].startswith("parent 'mid': its writer marked")
