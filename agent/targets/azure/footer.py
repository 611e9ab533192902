"""The footer that makes bytes of a page blob a fixed VHD. Pure."""

import hashlib

from imaging.formats.vhd.layout import build_fixed_footer

FOOTER_SIZE = 512
_UNIX_TIME_OF_2000 = 946_684_800


def footer_for(padded_size: int, origin: str, *, now_ms: int) -> bytes:
    """Return the 512 bytes behind a disk; the unique id follows from the line of jobs."""
    unique_id = hashlib.sha256(f"imageport/vhd/{origin}".encode()).digest()[:16]
    timestamp = max(0, now_ms // 1000 - _UNIX_TIME_OF_2000)
    return build_fixed_footer(padded_size, unique_id=unique_id, timestamp=timestamp)
