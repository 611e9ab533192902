"""CRC-32C (Castagnoli), the checksum of VHDX; not zlib's CRC-32."""

import google_crc32c


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`."""
    return int(google_crc32c.value(data))
