"""SMB times: from FILETIME to the nanoseconds that the rest of the house counts in."""

FILETIME_EPOCH = 116_444_736_000_000_000
"""1970-01-01 in units of 100 ns since 1601 ([MS-DTYP] 2.3.3)."""


def nanoseconds(filetime: int) -> int:
    """Return nanoseconds since 1970."""
    return (filetime - FILETIME_EPOCH) * 100
