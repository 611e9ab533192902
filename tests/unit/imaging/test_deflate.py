"""Compressing: the standard library inflates what we deflate, and the same bytes give the same result."""

import gzip
import random
import zlib

import pytest

from imaging.deflate import LEVELS, gzip_compressor, zlib_compressor
from imaging.units import KiB

TEXT = b"".join(b"line %d of a golden image\n" % i for i in range(2400))
NOISE = random.Random(1).randbytes(64 * KiB)
CONTENTS = {"nothing": b"", "zeros": bytes(64 * KiB), "text": TEXT, "noise": NOISE}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_it_is_zlib_and_gzip(level, content):
    assert zlib.decompress(zlib_compressor(level)(content)) == content
    assert gzip.decompress(gzip_compressor(level)(content)) == content


@pytest.mark.parametrize("level", LEVELS)
def test_noise_grows_by_little_and_text_shrinks(level):
    assert len(zlib_compressor(level)(NOISE)) <= 64 * KiB + 64
    assert len(zlib_compressor(level)(TEXT)) < len(TEXT) // 5


def test_small_is_smaller_than_fast():
    assert len(zlib_compressor("small")(TEXT)) < len(zlib_compressor("fast")(TEXT))


@pytest.mark.parametrize("level", LEVELS)
def test_the_result_depends_on_the_bytes_alone(level):
    compress = gzip_compressor(level)
    before = compress(TEXT)
    assert before[:8] == bytes.fromhex("1f8b080000000000")  # no name, no time
    compress(NOISE)
    assert compress(TEXT) == before


@pytest.mark.parametrize("level", LEVELS)
def test_members_one_after_the_other_are_one_file(level):
    compress = gzip_compressor(level)
    assert gzip.decompress(compress(TEXT) + compress(b"") + compress(NOISE)) == TEXT + NOISE
