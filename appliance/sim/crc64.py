"""The CRC-64 that Azure Storage checks (`x-ms-content-crc64`): CRC-64/NVME, sent as 8 little-endian bytes.

Uses the C code of azure-storage-extensions when that is installed (1.4 GB/s seen), else a table in Python (4 MB/s).
"""

from base64 import b64encode
from collections.abc import Callable, Iterable

POLYNOMIAL = 0x9A6C9329AC4BC9B5
"""CRC-64/NVME, bit-reversed; check value of b"123456789" is 0xAE8B14860A799888."""

_ALL_ONES = (1 << 64) - 1


def _entry(index: int) -> int:
    value = index
    for _ in range(8):
        value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(index) for index in range(256))


def compute_in_python(data: bytes, crc: int, /) -> int:
    """Continue `crc` (0 at the beginning) over `data`."""
    table = _TABLE
    crc ^= _ALL_ONES
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _ALL_ONES


def _fastest() -> Callable[[bytes, int], int]:
    try:
        from azure.storage.extensions.checksums import crc64  # noqa: PLC0415 (optional package)
    except ImportError:
        return compute_in_python
    native: Callable[[bytes, int], int] = crc64.compute
    return native


_compute = _fastest()


def crc64_header(chunks: Iterable[bytes]) -> str:
    """Return the value of `x-ms-content-crc64` for the joined chunks."""
    crc = 0
    for chunk in chunks:
        crc = _compute(chunk, crc)
    return b64encode(crc.to_bytes(8, "little")).decode()
