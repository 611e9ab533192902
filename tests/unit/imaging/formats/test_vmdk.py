"""VMDK: disks of one file and of many, delta links, and references that go nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    BlockOverlap,
    DeviceClosed,
    FileMissing,
    ImagingError,
    InvalidImage,
    ParentMismatch,
    ParentNeeded,
    ReferenceRefused,
    Truncated,
    UnsupportedImage,
)
from imaging.extent import Extent, Kind
from imaging.formats import open_image, open_path
from imaging.formats.base import DiskImage
from imaging.memory import MemoryDevice
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, Folder, SparseVmdk, StreamVmdk, descriptor, disk_of

GRAINS = {3: pattern(GRAIN, 3), 0: pattern(GRAIN, 0)}
DISK = disk_of(MiB, GRAINS)


def opened(image: bytes | str, name: str = "disk.vmdk", **files: bytes) -> DiskImage:
    folder = Folder({key.replace("__", "."): content for key, content in files.items()})
    content = image.encode() if isinstance(image, str) else image
    return open_image(MemoryDevice(content, read_only=True), name=name, siblings=folder)


def refusal(*arguments: Any, **files: bytes) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        opened(*arguments, **files)
    return caught.value


def content_of(disk: DiskImage) -> bytes:
    return read_bytes(disk, 0, disk.size)


# --- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", [SparseVmdk(MiB, GRAINS), StreamVmdk(MiB, GRAINS)], ids=["sparse", "stream"]
)
def test_a_disk_in_one_file_needs_no_other(image: SparseVmdk) -> None:
    disk = open_image(MemoryDevice(image.build()))
    assert content_of(disk) == DISK
    info = disk.info
    assert (info.format, info.subformat) == ("vmdk", image.create_type)
    assert (info.virtual_size, info.block_size, info.parent) == (MiB, GRAIN, None)
    assert (info.file_size, info.dirty, info.warnings) == (len(image.build()), False, ())


def test_the_name_inside_the_descriptor_may_be_an_old_one() -> None:
    image = SparseVmdk(MiB, GRAINS, text=descriptor('RW 2048 SPARSE "../old name"'))
    assert content_of(opened(image.build())) == DISK


def test_two_sizes_are_told_and_the_header_counts() -> None:
    image = SparseVmdk(MiB, GRAINS, text=descriptor('RW 2047 SPARSE "x"'))
    disk = opened(image.build())
    assert disk.size == MiB
    assert "the header counts" in disk.info.warnings[0]


def test_an_unclean_image_is_dirty() -> None:
    info = opened(SparseVmdk(MiB, dirty=1).build()).info
    assert info.dirty
    assert "did not close" in info.warnings[0]


def test_an_extent_alone_is_no_disk() -> None:
    err = refusal(SparseVmdk(MiB, GRAINS, text="").build())
    assert isinstance(err, UnsupportedImage)
    assert "one extent of a disk" in str(err)


@pytest.mark.parametrize(
    "lines",
    [['RW 2048 SPARSE "a"', 'RW 2048 SPARSE "b"'], ['RW 2048 FLAT "a"'], ["RW 2048 ZERO"]],
    ids=["two", "flat", "zero"],
)
def test_a_descriptor_inside_a_file_describes_that_file(lines: list[str]) -> None:
    assert isinstance(refusal(SparseVmdk(MiB, text=descriptor(*lines)).build()), UnsupportedImage)


# --- many files ----------------------------------------------------------------------------------


def test_extents_of_all_kinds_follow_each_other() -> None:
    flat, size = pattern(64 * 512, 7), 3 * GRAIN + 512
    sparse = SparseVmdk(size, {0: pattern(GRAIN, 1), 3: pattern(512, 2)}, text="")
    stream = StreamVmdk(MiB, GRAINS, text="")
    disk = opened(
        descriptor(
            'RW 16 FLAT "flat.bin" 8',
            "RW 100 ZERO",
            f'RW {size // 512} SPARSE "sparse.bin"',
            'RDONLY 8 VMFS "flat.bin" 40',
            f'RW {MiB // 512} SPARSE "stream.bin"',
        ),
        flat__bin=flat,
        sparse__bin=sparse.build(),
        stream__bin=stream.build(),
    )
    expected = (
        flat[8 * 512 : 24 * 512]
        + bytes(51200)
        + disk_of(size, {0: pattern(GRAIN, 1), 3: pattern(512, 2)})
        + flat[40 * 512 : 48 * 512]
        + DISK
    )
    assert content_of(disk) == expected
    for offset in range(0, len(expected), 40_001):
        assert (
            read_bytes(disk, offset, min(99_999, len(expected) - offset))
            == (expected[offset : offset + 99_999])
        )
    assert list(disk.extents(0, 16 * 512 + 51200 + GRAIN)) == [
        Extent(0, 8192, Kind.DATA),
        Extent(8192, 51200, Kind.HOLE),
        Extent(59392, GRAIN, Kind.DATA),
    ]


@pytest.mark.parametrize(
    "create_type",
    ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse", "vmfs", "custom"],
)
def test_the_subformat_is_the_create_type(create_type: str) -> None:
    text = descriptor('RW 8 FLAT "f"', create_type=create_type)
    assert opened(text, f=bytes(4096)).info.subformat == create_type


def test_a_missing_extent_is_named() -> None:
    err = refusal(descriptor('RW 8 FLAT "a"', 'RW 8 FLAT "gone-f002.vmdk"'), a=bytes(4096))
    assert isinstance(err, FileMissing)
    assert "gone-f002.vmdk" in str(err)


def test_without_a_folder_extents_are_what_is_missing() -> None:
    with pytest.raises(ParentNeeded, match=r"extent 1 'a\.vmdk'"):
        open_image(MemoryDevice(descriptor('RW 8 FLAT "a.vmdk"').encode()))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "sub/x", "C:\\x", "\\\\.\\PhysicalDrive0", "a:b", ".", ".."]
)
def test_an_extent_that_leads_elsewhere_is_refused(name: str) -> None:
    err = refusal(descriptor(f'RW 8 FLAT "{name}"'))
    assert isinstance(err, ReferenceRefused)
    assert "extent 1" in str(err)


def test_a_descriptor_is_no_extent_of_itself() -> None:
    assert "itself" in str(refusal(descriptor('RW 1 FLAT "disk.vmdk"')))


def test_extents_on_this_machine_are_no_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    (tmp_path / "flat.vmdk").symlink_to("secret")
    (tmp_path / "disk.vmdk").write_text(descriptor('RW 8 FLAT "flat.vmdk"'))
    with pytest.raises(ReferenceRefused), open_path(tmp_path / "disk.vmdk"):
        pass


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (['RW 9 FLAT "f"'], Truncated),
        (['RW 8 FLAT "f" 1'], Truncated),
        (['RW 8 FLAT "f" 99999999999999'], Truncated),
        (['RW 4 FLAT "f"', 'RW 4 FLAT "f" 3'], BlockOverlap),
        (['RW 4 FLAT "f"', 'RW 4 FLAT "f" 4'], None),
        (['RW 2049 SPARSE "s"'], InvalidImage),
        (['RW 2048 SPARSE "s"', 'RW 2048 SPARSE "s"'], BlockOverlap),
        (['RW 2048 SPARSE "f"'], InvalidImage),
        (['RW 2048 SPARSE "d"'], InvalidImage),
    ],
)
def test_extents_must_be_as_long_as_they_say(lines: list[str], error: Any) -> None:
    text = descriptor(*lines)
    files = {"f": bytes(4096), "s": SparseVmdk(MiB).build(), "d": text.encode()}
    if error is None:
        assert opened(text, **files).size == 4096
    else:
        err = refusal(text, **files)
        assert isinstance(err, error)
        assert str(err).startswith(f"disk.vmdk: {lines[0].split(chr(34))[1]}: ")


def test_an_extent_with_more_than_is_wanted_is_cut_and_told() -> None:
    disk = opened(descriptor('RW 2000 SPARSE "s"'), s=SparseVmdk(MiB, GRAINS).build())
    assert content_of(disk) == DISK[: 2000 * 512]
    assert disk.info.warnings[0].startswith("s: ")


def test_cowd_extents_are_refused_by_name() -> None:
    err = refusal(descriptor('RW 8 SPARSE "s"'), s=b"COWD".ljust(4096, b"\0"))
    assert isinstance(err, UnsupportedImage)
    assert "COWD" in str(err)


def test_a_huge_text_is_no_descriptor() -> None:
    text = descriptor("RW 8 ZERO") + "#" * MiB
    assert isinstance(refusal(text), InvalidImage)


# --- delta links ---------------------------------------------------------------------------------

BASE = SparseVmdk(MiB, GRAINS, cid="0000beef").build()
PARENT = ("0000beef", "base.vmdk")
TOP = {0: pattern(GRAIN, 20), 2: pattern(GRAIN, 22)}


def test_holes_of_a_delta_are_the_parents_and_zeros_hide_it() -> None:
    top = SparseVmdk(MiB, TOP, flags=7, entries={3: 1}, parent=PARENT)
    disk = opened(top.build(), base__vmdk=BASE)
    expected = disk_of(MiB, {0: TOP[0], 2: TOP[2]})
    assert content_of(disk) == expected
    assert disk.info.parent == "base.vmdk"
    without_zero = SparseVmdk(MiB, TOP, parent=PARENT)
    disk = opened(without_zero.build(), base__vmdk=BASE)
    assert content_of(disk) == disk_of(MiB, GRAINS | TOP)
    assert list(disk.extents(GRAIN, 3 * GRAIN)) == [
        Extent(GRAIN, GRAIN, Kind.HOLE),
        Extent(2 * GRAIN, 2 * GRAIN, Kind.DATA),
    ]


def test_a_chain_of_every_kind() -> None:
    flat = pattern(MiB, 50)
    middle = StreamVmdk(MiB, {1: pattern(GRAIN, 1)}, parent=("00000001", "base.vmdk"), cid="2")
    sparse = SparseVmdk(MiB // 2, {2: pattern(GRAIN, 2)}, text="").build()
    line = f'RW {MiB // 1024} SPARSE "s1"'
    zero = f"RW {MiB // 1024} ZERO"
    disk = opened(
        descriptor(line, zero, parent=("00000002", "C:\\VM\\middle.vmdk")),
        s1=sparse,
        middle__vmdk=middle.build(),
        base__vmdk=descriptor(f'RW {MiB // 512} FLAT "flat"', cid="1").encode(),
        flat=flat,
    )
    expected = bytearray(flat)
    expected[GRAIN : 2 * GRAIN] = pattern(GRAIN, 1)
    expected[2 * GRAIN : 3 * GRAIN] = pattern(GRAIN, 2)
    expected[MiB // 2 :] = bytes(MiB // 2)
    assert content_of(disk) == bytes(expected)
    assert read_bytes(disk, GRAIN + 5, 3 * GRAIN) == bytes(expected[GRAIN + 5 : 4 * GRAIN + 5])
    assert disk.info.parent == "middle.vmdk"


def test_a_parent_of_another_size_ends_in_zeros_or_is_cut_and_is_told() -> None:
    for size in (MiB // 2, 2 * MiB):
        base = SparseVmdk(size, GRAINS, cid="0000beef").build()
        disk = opened(
            SparseVmdk(MiB, {5: pattern(GRAIN, 5)}, parent=PARENT).build(), base__vmdk=base
        )
        assert content_of(disk) == disk_of(MiB, GRAINS | {5: pattern(GRAIN, 5)})
        assert str(size) in disk.info.warnings[0]


def test_another_parent_is_refused() -> None:
    base = SparseVmdk(MiB, GRAINS, cid="0000dead").build()
    err = refusal(SparseVmdk(MiB, parent=PARENT).build(), base__vmdk=base)
    assert isinstance(err, ParentMismatch)
    assert "0000dead, expected 0000beef" in str(err)


def test_parents_that_are_missing_unnamed_or_themselves_are_refused() -> None:
    delta = SparseVmdk(MiB, parent=PARENT).build()
    assert isinstance(refusal(delta), ParentNeeded)
    assert "names no parent" in str(refusal(SparseVmdk(MiB, parent=("1", "")).build()))
    loop = SparseVmdk(MiB, parent=("12345678", "disk.vmdk")).build()
    assert "comes back" in str(refusal(loop, disk__vmdk=loop))
    with pytest.raises(ParentNeeded):
        open_image(MemoryDevice(delta))


def test_a_parent_is_looked_for_in_the_folder_only() -> None:
    folder = Folder({"base.vmdk": BASE})
    for hint in ("base.vmdk", "sub/base.vmdk", "/etc/../base.vmdk", "D:\\base.vmdk"):
        top = SparseVmdk(MiB, parent=("0000beef", hint)).build()
        open_image(MemoryDevice(top), name="disk.vmdk", siblings=folder)
    assert folder.opened == ["base.vmdk"] * 4
    for hint in ("json:{}", "nbd://h/x:y", "..", "x\\..", "../base.vmdk"):
        top = SparseVmdk(MiB, parent=("0000beef", hint)).build()
        assert isinstance(refusal(top), ReferenceRefused)


def test_what_is_wrong_with_a_parent_names_it() -> None:
    err = refusal(SparseVmdk(MiB, parent=PARENT).build(), base__vmdk=BASE[:600])
    assert str(err).startswith("disk.vmdk: parent 'base.vmdk': ")
    assert err.fields["parent"] == "base.vmdk"


# --- what is opened is closed --------------------------------------------------------------------


class Closing(Folder):
    """A folder that knows which of its files are open."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(files)
        self.devices: list[MemoryDevice] = []

    def open(self, name: str) -> MemoryDevice:
        self.devices.append(super().open(name))
        return self.devices[-1]

    def all_closed(self) -> bool:
        for device in self.devices:
            try:
                device.read_into(0, memoryview(bytearray()))
            except DeviceClosed:
                continue
            return False
        return True


def test_what_the_image_opened_is_closed_with_it() -> None:
    text = descriptor(f'RW {MiB // 512} SPARSE "s"', 'RW 8 FLAT "f"', parent=PARENT)
    files = {"s": SparseVmdk(MiB).build(), "f": bytes(4096), "base.vmdk": BASE}
    folder, file = Closing(files), MemoryDevice(text.encode())
    disk = open_image(file, name="disk.vmdk", siblings=folder)
    assert len(folder.devices) == 3
    assert not folder.all_closed()
    disk.close()
    assert folder.all_closed()
    assert read_bytes(file, 0, 1) == b"#"


@pytest.mark.parametrize("bad", ["s", "f", "base.vmdk"])
def test_what_was_opened_is_closed_when_opening_fails(bad: str) -> None:
    text = descriptor(f'RW {MiB // 512} SPARSE "s"', 'RW 8 FLAT "f"', parent=PARENT)
    files = {"s": SparseVmdk(MiB).build(), "f": bytes(4096), "base.vmdk": BASE} | {bad: b"x"}
    folder = Closing(files)
    with pytest.raises(ImagingError):
        open_image(MemoryDevice(text.encode()), name="disk.vmdk", siblings=folder)
    assert folder.devices
    assert folder.all_closed()


@pytest.mark.parametrize(
    ("kind", "end", "is_read"),
    [
        ("monolithicFlat", "\n", True),
        ("vmfs", "\r\n", True),
        ("monolithicFlat", "", False),
        ("custom", "\n", False),
        ("twoGbMaxExtentFlat", "\n", False),
    ],
)
def test_a_descriptor_without_its_end_is_read_only_where_nothing_can_be_missing(
    kind: str, end: str, is_read: bool, tmp_path: Path
) -> None:
    (tmp_path / "flat.vmdk").write_bytes(bytes(MiB))
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff"]
    text = "\n".join([*lines, f'createType="{kind}"', 'RW 2048 FLAT "flat.vmdk" 0']) + end
    (tmp_path / "disk.vmdk").write_bytes(text.encode())
    if is_read:
        with open_path(tmp_path / "disk.vmdk") as image:
            assert image.size == MiB
    else:
        with pytest.raises(Truncated), open_path(tmp_path / "disk.vmdk"):
            pass
