"""What files of each format begin with, what they are called, how large their disks are; knows nothing else of them.

Who only asks which format a file has imports no format.
"""

from imaging.units import GiB, TiB

VHD_COOKIE = b"conectix"
"""Of the footer, and of its copy at the start of a dynamic disk."""
VHD_DYNAMIC_COOKIE = b"cxsparse"
VHDX_SIGNATURE = b"vhdxfile"
VMDK_MAGIC = b"KDMV"
VMDK_DESCRIPTOR = b"# Disk DescriptorFile"
QCOW2_MAGIC = b"QFI\xfb"

SIGNATURES = (
    (VHDX_SIGNATURE, "vhdx"),
    (VMDK_MAGIC, "vmdk"),
    (VMDK_DESCRIPTOR, "vmdk"),
    (QCOW2_MAGIC, "qcow2"),
)
"""(first bytes, format), in the order of looking."""

UNSUPPORTED = (
    (0, b"QFI\xfb\0\0\0\1", "qcow version 1"),
    (0, b"COWD", "VMDK (COWD)"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"\xfd7zXZ\x00", "xz"),
)
"""(offset, bytes, name): known, not read. Taking them for raw would upload a container as a disk."""

MAX_VIRTUAL_SIZE = 64 * TiB
"""Bytes of a disk in any format: no hypervisor has a larger one (VMware ends at 62 TiB)."""
MAX_DYNAMIC_VHD = 2040 * GiB
"""The BAT of a dynamic VHD counts 2^32 sectors of the file, blocks and all; Windows makes none larger than this."""

SUFFIXES = {
    ".vhd": "vhd",
    ".avhd": "vhd",
    ".vhdx": "vhdx",
    ".avhdx": "vhdx",
    ".vmdk": "vmdk",
    ".ova": "ova",
    ".qcow2": "qcow2",
    ".qcow": "qcow2",
}
