"""The entries of a VHDX's BAT ([MS-VHDX] 2.5.1): where they are, what they say, how they are built. Reads no file."""

from array import array
from collections.abc import Sequence

from imaging.extent import Kind
from imaging.formats.vhdx.layout import DiskParameters
from imaging.units import MiB
from imaging.words import pack_words

ENTRY_SIZE = 8
_STATE_MASK = 0x7
_OFFSET_MASK = ~0xF_FFFF
"""The upper 44 bits count MiB, so in place they are the file offset in bytes."""

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 6, 7
"""Payload block states (2.5.1.1), the low three bits of an entry; 4 and 5 are reserved."""

ABSENT_STATES = {NOT_PRESENT: Kind.HOLE, UNDEFINED: Kind.HOLE, ZERO: Kind.ZERO, UNMAPPED: Kind.HOLE}
"""States that read as zeros; the offset of an unmapped block may be stale and is never followed."""

BITMAP_SIZE = 1 * MiB
"""A sector bitmap block (2.4): one for the 2^23 sectors of a chunk."""


def entry_count(disk: DiskParameters, blocks: int) -> int:
    """Return the BAT entries of so many blocks, those of sector bitmaps included (2.5)."""
    if disk.has_parent:
        return -(-blocks // disk.chunk_ratio) * (disk.chunk_ratio + 1)
    return blocks + (blocks - 1) // disk.chunk_ratio


def entry_index(block: int, disk: DiskParameters) -> int:
    """Return which entry of the BAT is that of a block: one of a sector bitmap ends each chunk."""
    return block + block // disk.chunk_ratio


def build_entries(disk: DiskParameters, first: int, offsets: Sequence[int]) -> bytes:
    """Build the entries of neighbouring blocks, and those of the sector bitmaps between them.

    Args:
        disk: A disk without a parent.
        first: The first block; its entry lies at `entry_index(first, disk)`.
        offsets: Where each block lies in the file, a multiple of 1 MiB; 0: it is not there.
    """
    start = entry_index(first, disk)
    entries = array("Q", bytes(ENTRY_SIZE)) * (
        entry_index(first + len(offsets) - 1, disk) - start + 1
    )
    for block, offset in enumerate(offsets, first):
        if offset:
            entries[entry_index(block, disk) - start] = offset | FULLY_PRESENT
    return pack_words(entries, "little")


def state_of(entry: int) -> int:
    """Return the state in an entry."""
    return entry & _STATE_MASK


def place_of(entry: int) -> int:
    """Return the file offset in an entry."""
    return entry & _OFFSET_MASK
