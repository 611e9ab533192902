"""Probing: the order of the rules, and that nothing of a container is ever uploaded as a raw disk."""

import pytest

from imaging.errors import FormatMismatch, InvalidImage, UnsupportedImage
from imaging.formats.probe import probe
from imaging.memory import MemoryDevice
from tests.support.disks import DynamicVhd, MiB, Vhdx, fixed_vhd, pattern, vhd_footer
from tests.support.vmdks import ova, tar

RAW = pattern(MiB)
VHDX = Vhdx(MiB, {0: RAW}).build()
FIXED = fixed_vhd(RAW)
DYNAMIC = DynamicVhd(MiB, {0: RAW[: MiB // 2]}).build()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (RAW, "raw"),
        (VHDX, "vhdx"),
        (FIXED, "vhd"),
        (FIXED[:-1], "vhd"),
        (DYNAMIC, "vhd"),
        (DYNAMIC[:-512], "vhd"),
        (VHDX + vhd_footer(MiB), "vhdx"),
        (b"vhdxfile".ljust(512) + FIXED[512:], "vhdx"),
        (b"", "raw"),
        (b"x", "raw"),
        (RAW + fixed_vhd(RAW), "raw"),
        (RAW + DYNAMIC, "raw"),
        (RAW + VHDX, "raw"),
        (FIXED[:-100] + b"?" + FIXED[-99:], "raw"),
        (b"conectix" + RAW, "raw"),
        (b"QFI\xfb\0\0\0\3" + RAW, "qcow2"),
        (b"QFI\xfb\0\0\0\2" + FIXED[8:], "qcow2"),
        (RAW + b"QFI\xfb\0\0\0\3", "raw"),
        (b"KDMV" + RAW, "vmdk"),
        (b"# Disk DescriptorFile\nversion=1", "vmdk"),
        (b"KDMV" + FIXED[4:], "vmdk"),
        (ova(b""), "ova"),
        (tar({"x": b"", "VM.OVF": b""}), "ova"),
    ],
    ids=[
        "raw",
        "vhdx",
        "vhd-fixed",
        "vhd-fixed-511",
        "vhd-dynamic",
        "vhd-dynamic-by-its-copy",
        "vhdx-before-footer",
        "vhdx-before-all",
        "empty",
        "one-byte",
        "raw-with-a-vhd-nested-at-its-end",
        "raw-with-a-dynamic-vhd-nested-at-its-end",
        "raw-with-a-vhdx-nested-at-its-end",
        "bad-footer-and-no-name",
        "cookie-alone",
        "qcow2",
        "qcow2-before-footer",
        "raw-with-a-qcow2-nested-at-its-end",
        "vmdk",
        "vmdk-descriptor",
        "vmdk-before-footer",
        "ova",
        "ova-in-another-order",
    ],
)
def test_content_decides(content: bytes, expected: str) -> None:
    assert probe(MemoryDevice(content)) == expected


@pytest.mark.parametrize(
    ("magic", "offset"),
    [
        (b"QFI\xfb\0\0\0\1", 0),
        (b"COWD", 0),
        (b"\x7f\x10\xda\xbe", 64),
        (b"\x1f\x8b\x08", 0),
        (b"\xfd7zXZ\0", 0),
    ],
    ids=["qcow", "cowd", "vdi", "gzip", "xz"],
)
def test_known_containers_are_refused_by_name(magic: bytes, offset: int) -> None:
    content = bytes(offset) + magic + RAW
    with pytest.raises(UnsupportedImage):
        probe(MemoryDevice(content), "disk.raw")


def test_a_tar_is_an_ova_or_nothing() -> None:
    with pytest.raises(UnsupportedImage, match="without an OVF"):
        probe(MemoryDevice(tar({"disk.raw": RAW})), "disk.raw")
    with pytest.raises(InvalidImage):
        probe(MemoryDevice(bytes(257) + b"ustar" + RAW), "disk.raw")


@pytest.mark.parametrize("name", ["a.vhd", "d.ova", "A.VHDX", "a.avhdx", "x/b.vmdk", "c.qcow2"])
def test_a_name_that_promises_more_than_raw_is_no_raw_disk(name: str) -> None:
    with pytest.raises(FormatMismatch, match="promises"):
        probe(MemoryDevice(RAW), name)


def test_a_name_makes_a_damaged_footer_a_vhd() -> None:
    damaged = FIXED[:-100] + b"?" + FIXED[-99:]
    assert probe(MemoryDevice(damaged), "a.vhd") == "vhd"
    assert probe(MemoryDevice(RAW + FIXED), "a.vhd") == "vhd"
    assert probe(MemoryDevice(RAW), "a.img") == "raw"
