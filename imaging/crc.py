"""CRCs of joined pieces out of the pieces' own CRCs (zlib's crc32_combine, for CRC-32 and CRC-32C). Pure.

crc(a + b) = crc(a) * x^(8 len(b)) + crc(b), modulo the polynomial, in GF(2); bits are reflected, so 1 << 31 is x^0.
"""

from collections.abc import Iterator
from functools import lru_cache

CRC32 = 0xEDB88320
"""gzip's (RFC 1952), reflected."""
CRC32C = 0x82F63B78
"""Castagnoli's, reflected: Google Cloud Storage's."""

_ONE = 1 << 31
_LENGTHS = 64


def combine(polynomial: int, first: int, second: int, length: int) -> int:
    """Return the CRC of two pieces, the second `length` bytes long."""
    return _multiply(polynomial, _power(polynomial, length), first) ^ second


@lru_cache(maxsize=256)
def _power(polynomial: int, length: int) -> int:
    """Return x^(8 length)."""
    power, table = _ONE, iter(_squares(polynomial)[3:])
    while length:
        square = next(table)
        if length & 1:
            power = _multiply(polynomial, square, power)
        length >>= 1
    return power


@lru_cache(maxsize=2)
def _squares(polynomial: int) -> tuple[int, ...]:
    """Return x^1, x^2, x^4, ..."""

    def squares() -> Iterator[int]:
        value = _ONE >> 1
        for _ in range(_LENGTHS + 3):
            yield value
            value = _multiply(polynomial, value, value)

    return tuple(squares())


def _multiply(polynomial: int, a: int, b: int) -> int:
    product, bit = 0, _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ polynomial if b & 1 else b >> 1
    return product
