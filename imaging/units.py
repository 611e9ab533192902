"""Byte units and rounding helpers shared by everything that counts bytes; holds no policy."""

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

SECTOR_SIZE = 512
"""Bytes of one sector wherever a header does not say otherwise."""


def round_up(value: int, unit: int) -> int:
    """Return the smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit
