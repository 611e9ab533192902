"""CRCs of joined pieces equal the CRC of the whole, for both polynomials and any cut."""

import random
import zlib

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.crc import CRC32, CRC32C, combine

CASES = {"crc32": (CRC32, zlib.crc32), "crc32c": (CRC32C, google_crc32c.value)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_two_pieces(case, first: bytes, second: bytes) -> None:
    polynomial, crc = case
    assert combine(polynomial, crc(first), crc(second), len(second)) == crc(first + second)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_many_large_pieces(case) -> None:
    polynomial, crc = case
    whole = random.Random(5).randbytes(9_000_001)
    joined = 0
    for at in range(0, len(whole), 2_097_152):
        piece = whole[at : at + 2_097_152]
        joined = combine(polynomial, joined, crc(piece), len(piece))
    assert joined == crc(whole)


def test_lengths_beyond_32_bits() -> None:
    """Appending zeros twice 2^36 bytes is appending 2^37: the table of squares must not wrap early."""
    for polynomial in (CRC32, CRC32C):
        zeros = {n: combine(polynomial, 0x12345678, 0, 1 << n) for n in (36, 37)}
        assert combine(polynomial, zeros[36], 0, 1 << 36) == zeros[37]
