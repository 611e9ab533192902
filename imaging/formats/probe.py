"""Guess the format of an image from its first and last bytes and its name; opens nothing else.

A guess is only for people at a terminal: a job names its format, and that is never second-guessed,
because a guest can write any header into a raw disk (CVE-2008-2004).
"""

from imaging.device import BlockDevice, read_bytes
from imaging.errors import FormatMismatch, UnsupportedImage
from imaging.formats.ova.device import holds_ovf
from imaging.formats.qcow2.layout import MAGIC as QCOW2_MAGIC
from imaging.formats.vhd.layout import (
    DYNAMIC_COOKIE,
    FOOTER_COOKIE,
    FOOTER_SIZE,
    SHORT_FOOTER_SIZE,
    is_footer,
    parse_footer,
)
from imaging.formats.vhdx.layout import FILE_SIGNATURE
from imaging.formats.vmdk.descriptor import SIGNATURE
from imaging.formats.vmdk.layout import MAGIC

_HEAD_SIZE = 1536
"""The footer's copy, and the dynamic header where every known writer puts it."""

_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257

_SIGNATURES = (
    (FILE_SIGNATURE, "vhdx"),
    (MAGIC, "vmdk"),
    (SIGNATURE, "vmdk"),
    (QCOW2_MAGIC, "qcow2"),
)

_UNSUPPORTED = (
    (0, b"QFI\xfb\0\0\0\1", "qcow version 1"),
    (0, b"COWD", "VMDK (COWD)"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"\xfd7zXZ\x00", "xz"),
)
"""Known, not read by this version: taking them for raw would upload a container as a disk."""

_SUFFIXES = {
    ".vhd": "vhd",
    ".avhd": "vhd",
    ".vhdx": "vhdx",
    ".avhdx": "vhdx",
    ".vmdk": "vmdk",
    ".ova": "ova",
    ".qcow2": "qcow2",
    ".qcow": "qcow2",
}


def promises(name: str, format: str) -> bool:
    """Return whether the name of a file ends as names of this format do."""
    return any(name.lower().endswith(end) for end, found in _SUFFIXES.items() if found == format)


def probe(file: BlockDevice, name: str = "") -> str:
    """Return "vhdx", "vmdk", "ova", "qcow2", "vhd" or "raw".

    Raises:
        UnsupportedImage: It is a format that is known by sight only, or a tar that is no OVA.
        InvalidImage: It is a tar, and damaged.
        FormatMismatch: Nothing was recognised, and the name promises more than a raw disk.
    """
    head = read_bytes(file, 0, min(_HEAD_SIZE, file.size))
    for offset, magic, what in _UNSUPPORTED:
        if head[offset : offset + len(magic)] == magic:
            raise UnsupportedImage(f"{what} images are not read by this version", found=what)
    for signature, found in _SIGNATURES:
        if head.startswith(signature):
            return found
    if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        if holds_ovf(file):
            return "ova"
        raise UnsupportedImage("tar archives without an OVF descriptor are not read", found="tar")
    if is_footer(head[:FOOTER_SIZE]) and DYNAMIC_COOKIE in head[FOOTER_SIZE:]:
        return "vhd"
    promised = next((fmt for end, fmt in _SUFFIXES.items() if name.lower().endswith(end)), "raw")
    if _ends_as_vhd(file, strict=promised != "vhd"):
        return "vhd"
    if promised != "raw":
        raise FormatMismatch(
            f"the name promises {promised}, but neither the start nor the end of the file is one",
            expected=promised,
            found="raw",
        )
    return "raw"


def _ends_as_vhd(file: BlockDevice, *, strict: bool) -> bool:
    """Tell whether the file ends in a footer.

    Where the name says nothing, the footer must fit: its checksum right, and a fixed disk exactly as
    long as the file. Else it may belong to an image that lies nested at the end of a raw disk.
    """
    for length in (FOOTER_SIZE, SHORT_FOOTER_SIZE):
        if file.size < length or (
            length == SHORT_FOOTER_SIZE and file.size % FOOTER_SIZE != length
        ):
            continue
        tail = read_bytes(file, file.size - length, length)
        if not tail.startswith(FOOTER_COOKIE):
            continue
        if not strict:
            return True
        if is_footer(tail):
            return parse_footer(tail, file.size - length).current_size == file.size - length
    return False
