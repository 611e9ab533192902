"""Guess the format of an image from its first and last bytes and its name; opens nothing else.

A guess is only for people at a terminal: a job names its format, and that is never second-guessed,
because a guest can write any header into a raw disk (CVE-2008-2004).
"""

from imaging.device import BlockDevice, read_bytes
from imaging.errors import FormatMismatch, UnsupportedImage
from imaging.formats.signatures import SIGNATURES, SUFFIXES, UNSUPPORTED, VHD_COOKIE
from imaging.late import load

_HEAD_SIZE = 1536
"""The footer's copy of a VHD, and the dynamic header where every known writer puts it."""
_FOOTER_SIZES = (512, 511)
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


def promises(name: str, format: str) -> bool:
    """Return whether the name of a file ends as names of this format do."""
    return any(name.lower().endswith(end) for end, found in SUFFIXES.items() if found == format)


def probe(file: BlockDevice, name: str = "") -> str:
    """Return "vhdx", "vmdk", "ova", "qcow2", "vhd" or "raw".

    Raises:
        UnsupportedImage: It is a format that is known by sight only, or a tar that is no OVA.
        InvalidImage: It is a tar, and damaged.
        FormatMismatch: Nothing was recognised, and the name promises more than a raw disk.
    """
    head = read_bytes(file, 0, min(_HEAD_SIZE, file.size))
    for offset, magic, what in UNSUPPORTED:
        if head[offset : offset + len(magic)] == magic:
            raise UnsupportedImage(f"{what} images are not read by this version", found=what)
    for signature, found in SIGNATURES:
        if head.startswith(signature):
            return found
    if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        if load("imaging.formats.ova.device:holds_ovf")(file):
            return "ova"
        raise UnsupportedImage("tar archives without an OVF descriptor are not read", found="tar")
    if head.startswith(VHD_COOKIE) and load("imaging.formats.vhd.probe:starts_as_vhd")(head):
        return "vhd"
    promised = next((fmt for end, fmt in SUFFIXES.items() if name.lower().endswith(end)), "raw")
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
    """Tell whether the file ends in a footer of a VHD; nothing is imported where there is no trace of one."""
    lengths = (length for length in _FOOTER_SIZES if length <= file.size)
    tails = (read_bytes(file, file.size - length, len(VHD_COOKIE)) for length in lengths)
    if VHD_COOKIE not in tails:
        return False
    found: bool = load("imaging.formats.vhd.probe:ends_as_vhd")(file, strict=strict)
    return found
