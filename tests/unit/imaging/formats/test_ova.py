"""OVA: the one disk of an appliance, read where it lies in the archive."""

from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    FileMissing,
    ImagingError,
    InvalidImage,
    ParentNeeded,
    ReferenceRefused,
    UnsupportedImage,
)
from imaging.formats import open_image, open_path
from imaging.formats.base import DiskImage
from imaging.memory import MemoryDevice
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, SparseVmdk, StreamVmdk, descriptor, disk_of, ova, ovf, tar

GRAINS = {1: pattern(GRAIN, 1), 9: pattern(GRAIN, 9)}
IMAGE = StreamVmdk(MiB, GRAINS).build()
DISK = disk_of(MiB, GRAINS)
ONE = ovf({"f": "disk-1.vmdk"}, {"d": "f"})


def opened(content: bytes) -> DiskImage:
    return open_image(MemoryDevice(content), name="vm.ova")


def refusal(content: bytes) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        opened(content)
    return caught.value


def test_the_disk_of_an_appliance() -> None:
    content = ova(IMAGE)
    disk = opened(content)
    assert read_bytes(disk, 0, MiB) == DISK
    assert read_bytes(disk, GRAIN - 5, 10) == DISK[GRAIN - 5 : GRAIN + 5]
    info = disk.info
    assert (info.format, info.subformat) == ("ova", "streamOptimized")
    assert (info.virtual_size, info.file_size, info.block_size) == (MiB, len(content), GRAIN)
    assert info.warnings == ("the digests in 'vm.mf' were not compared",)


def test_extents_are_those_of_the_disk() -> None:
    kinds = [(extent.length, extent.is_data) for extent in opened(ova(IMAGE)).extents(0, MiB)]
    assert kinds == [
        (GRAIN, False),
        (GRAIN, True),
        (7 * GRAIN, False),
        (GRAIN, True),
        (118 * GRAIN, False),
    ]


def test_the_members_of_the_archive_are_what_lies_beside_the_disk(tmp_path: Path) -> None:
    text = descriptor(f'RW {MiB // 512} FLAT "flat.bin"').encode()
    members = {"vm.ovf": ONE, "disk-1.vmdk": text, "flat.bin": DISK}
    assert read_bytes(opened(tar(members)), 0, MiB) == DISK
    del members["flat.bin"]
    path = tmp_path / "vm.ova"
    path.write_bytes(tar(members))
    (tmp_path / "flat.bin").write_bytes(DISK)
    with pytest.raises(FileMissing, match=r"no member 'flat\.bin'"), open_path(path):
        pass


def test_several_disks_are_listed_and_refused() -> None:
    text = ovf({"a": "a.vmdk", "b": "b.vmdk"}, {"sys": "a", "data": "b", "empty": None})
    err = refusal(tar({"vm.ovf": text, "a.vmdk": IMAGE, "b.vmdk": IMAGE}))
    assert isinstance(err, UnsupportedImage)
    assert "2 disks" in str(err)
    assert "'sys' ('a.vmdk'), 'data' ('b.vmdk')" in str(err)
    assert "0 disks" in str(refusal(tar({"vm.ovf": ovf({}, {"empty": None})})))


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"a.ovf": ONE, "b.ovf": ONE}, UnsupportedImage, "2 OVF descriptors"),
        ({"vm.ovf": ONE}, FileMissing, "disk-1.vmdk"),
        ({"vm.ovf": b"<", "disk-1.vmdk": IMAGE}, InvalidImage, "no XML"),
        ({"vm.ovf": b" " * (5 << 20)}, InvalidImage, "OVF descriptor has"),
        ({"vm.ovf": ONE, "disk-1.vmdk": IMAGE[:-512]}, InvalidImage, "disk-1.vmdk: no footer"),
        ({"vm.ovf": ONE, "disk-1.vmdk": b"\x1f\x8b\x08" + IMAGE}, UnsupportedImage, "gzip"),
        ({"vm.ovf": ONE, "disk-1.vmdk": pattern(999)}, InvalidImage, "no VMDK header"),
    ],
    ids=["two-ovf", "no-disk", "no-xml", "long", "truncated", "gzip", "no-vmdk"],
)
def test_what_is_no_appliance_is_refused(
    members: dict[str, bytes], error: type[ImagingError], message: str
) -> None:
    err = refusal(tar(members))
    assert isinstance(err, error)
    assert message in str(err)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            ovf({"f": "disk-1.vmdk"}, {"d": "f"}, attributes='ovf:compression="gzip"'),
            UnsupportedImage,
            "gzip",
        ),
        (
            ovf({"f": "disk-1.vmdk"}, {"d": "f"}, attributes='ovf:chunkSize="9"'),
            UnsupportedImage,
            "chunks",
        ),
        (ovf({"f": "../disk-1.vmdk"}, {"d": "f"}), ReferenceRefused, "disk 'd'"),
        (ovf({"f": "http://h/d.vmdk"}, {"d": "f"}), ReferenceRefused, "disk 'd'"),
        (ovf({"f": ""}, {"d": "f"}), ReferenceRefused, "disk 'd'"),
        (ONE.replace(b"vmdk.html", b"vhd"), UnsupportedImage, "expected a VMDK"),
    ],
    ids=["gzip", "chunks", "path", "url", "nothing", "vhd"],
)
def test_what_the_descriptor_asks_for_is_refused_by_name(
    text: bytes, error: type[ImagingError], message: str
) -> None:
    text = text.replace(b"vmdk.html#streamOptimized", b"x") if b"vhd" in text else text
    err = refusal(tar({"vm.ovf": text, "disk-1.vmdk": IMAGE}))
    assert isinstance(err, error)
    assert message in str(err)


def test_two_members_of_one_name_are_refused() -> None:
    content = tar({"vm.ovf": ONE, "disk-1.vmdk": IMAGE})
    single = tar({"disk-1.vmdk": IMAGE})
    assert "twice" in str(refusal(single[: len(IMAGE) + 512] + content))


def test_another_size_than_the_descriptor_says_is_told() -> None:
    text = ovf({"f": "disk-1.vmdk"}, {"d": "f"}, attributes='ovf:size="7"')
    warnings = opened(tar({"vm.ovf": text, "disk-1.vmdk": IMAGE})).info.warnings
    assert warnings == (f"'disk-1.vmdk' has {len(IMAGE)} bytes, but 7 by the OVF descriptor",)


def test_a_delta_link_needs_its_parent_in_the_archive() -> None:
    delta = SparseVmdk(MiB, parent=("0000beef", "base.vmdk")).build()
    assert isinstance(refusal(tar({"vm.ovf": ONE, "disk-1.vmdk": delta})), ParentNeeded)
    base = SparseVmdk(MiB, GRAINS, cid="0000beef").build()
    members = {"vm.ovf": ONE, "disk-1.vmdk": delta, "base.vmdk": base}
    assert read_bytes(opened(tar(members)), 0, MiB) == DISK
    itself = SparseVmdk(MiB, parent=("12345678", "disk-1.vmdk")).build()
    assert "comes back" in str(refusal(tar({"vm.ovf": ONE, "disk-1.vmdk": itself})))
