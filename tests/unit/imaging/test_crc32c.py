"""CRC-32C: the check value of its definition, so that zlib's CRC-32 can never slip in."""

from imaging.crc32c import crc32c


def test_check_value_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0
