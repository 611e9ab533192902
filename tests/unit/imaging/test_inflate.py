"""Inflate: exactly the size that was asked for or an error, whichever library does the work."""

import zlib

import pytest

from imaging import inflate
from imaging.errors import InvalidImage
from imaging.inflate import inflate_raw, inflate_zlib
from tests.support.disks import KiB, pattern

CONTENT = pattern(64 * KiB)
PICKS = {
    "libdeflate": inflate._by_libdeflate,
    "isal": inflate._by_isal,
    "zlib": inflate._by_zlib,
}


@pytest.fixture(params=PICKS.values(), ids=PICKS.keys(), autouse=True)
def _pick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "_fast", request.param())


def raw(content: bytes, bits: int = 12) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return stream.compress(content) + stream.flush()


@pytest.mark.parametrize("level", [0, 1, 9], ids=["stored", "fast", "small"])
@pytest.mark.parametrize("padding", [b"", bytes(400), b"\xff" * 400], ids=["bare", "zeros", "ones"])
def test_what_was_deflated_comes_back(level: int, padding: bytes) -> None:
    data = zlib.compress(CONTENT, level) + padding
    assert inflate_zlib(data, len(CONTENT)) == CONTENT
    assert inflate_zlib(memoryview(data), len(CONTENT)) == CONTENT
    assert inflate_raw(raw(CONTENT) + padding, len(CONTENT), window_bits=12) == CONTENT


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (zlib.compress(CONTENT), len(CONTENT) - 1, "more than"),
        (zlib.compress(CONTENT), 1, "more than"),
        (zlib.compress(bytes(64 << 20)), 64 * KiB, "more than"),
        (zlib.compress(CONTENT), len(CONTENT) + 1, "hold 65536 bytes, expected 65537"),
        (zlib.compress(b""), 1, "hold 0 bytes"),
        (zlib.compress(CONTENT)[:-1], len(CONTENT), "end early"),
        (zlib.compress(CONTENT)[:999], len(CONTENT), "end early"),
        (zlib.compress(CONTENT)[:-1] + b"?", len(CONTENT), "damaged"),
        (raw(CONTENT), len(CONTENT), "damaged"),
        (b"", 1, "end early"),
    ],
    ids=[
        "one-less",
        "one",
        "bomb",
        "one-more",
        "none",
        "no-sum",
        "cut",
        "wrong-sum",
        "raw",
        "empty",
    ],
)
def test_anything_else_is_an_error(data: bytes, size: int, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        inflate_zlib(data, size)


@pytest.mark.parametrize("size", [1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_raw_data_of_another_length_are_an_error(size: int) -> None:
    with pytest.raises(InvalidImage):
        inflate_raw(raw(CONTENT), size, window_bits=12)


@pytest.mark.parametrize("size", [0, -1])
def test_no_size_is_a_defect_of_the_caller(size: int) -> None:
    with pytest.raises(ValueError, match="cannot inflate"):
        inflate_zlib(zlib.compress(b""), size)


def test_libdeflate_is_what_an_installation_uses() -> None:
    assert inflate._pick().__qualname__.startswith("_by_libdeflate")
