"""Whether a file is a VHD, by its first bytes or its footer; reads nothing further."""

from imaging.device import BlockDevice, read_bytes
from imaging.formats.signatures import VHD_COOKIE, VHD_DYNAMIC_COOKIE
from imaging.formats.vhd.layout import (
    FOOTER_SIZE,
    SHORT_FOOTER_SIZE,
    is_footer,
    parse_footer,
)


def starts_as_vhd(head: bytes) -> bool:
    """Tell whether a file begins as a dynamic VHD: a sound copy of the footer, and the dynamic header near it."""
    return is_footer(head[:FOOTER_SIZE]) and VHD_DYNAMIC_COOKIE in head[FOOTER_SIZE:]


def ends_as_vhd(file: BlockDevice, *, strict: bool) -> bool:
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
        if not tail.startswith(VHD_COOKIE):
            continue
        if not strict:
            return True
        if is_footer(tail):
            return parse_footer(tail, file.size - length).current_size == file.size - length
    return False
