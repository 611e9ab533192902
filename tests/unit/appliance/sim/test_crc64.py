"""The checksum is CRC-64/NVME in little-endian base64, whoever computes it."""

import random

import pytest

from appliance.sim import crc64

CHECK_VALUE = 0xAE8B14860A799888
"""CRC-64/NVME of b"123456789", from the catalogue of parametrised CRC algorithms."""


def test_python_table_gives_the_catalogue_value() -> None:
    assert crc64.compute_in_python(b"123456789", 0) == CHECK_VALUE


def test_header_joins_the_chunks() -> None:
    assert crc64.crc64_header([b"1234", b"", b"56789"]) == "iJh5CoYUi64="


def test_python_table_agrees_with_microsofts_own_code() -> None:
    checksums = pytest.importorskip("azure.storage.extensions.checksums")
    data = random.Random(1).randbytes(5000)
    for cut in (0, 1, 7, 512, 5000):
        assert crc64.compute_in_python(data[:cut], 0) == checksums.crc64.compute(data[:cut], 0)
    half = checksums.crc64.compute(data[:2500], 0)
    assert crc64.compute_in_python(data[2500:], half) == checksums.crc64.compute(data, 0)
