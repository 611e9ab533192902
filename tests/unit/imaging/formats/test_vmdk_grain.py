"""One compressed grain: another grain's marker, bombs and short content are errors, a cut last one is not."""

import zlib

import pytest

from imaging.errors import InvalidImage
from imaging.formats.vmdk.grain import GrainDecoder
from imaging.formats.vmdk.layout import Marker
from tests.support.disks import pattern
from tests.support.vmdks import GRAIN

DECODER = GrainDecoder(3 * GRAIN + 512, GRAIN)
CONTENT = pattern(GRAIN)


def test_the_length_is_that_of_marker_and_data() -> None:
    assert DECODER.length(Marker(32, 100, 0), 2, 0) == 112
    assert DECODER.length(Marker(0, 2 * GRAIN, 0), 0, 0) == 12 + 2 * GRAIN
    assert DECODER.max_length == 2 * GRAIN + 512


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Marker(16, 100, 0), "sector 16, expected 32"),
        (Marker(0, 100, 0), "sector 0"),
        (Marker(2**40, 100, 0), "sector"),
        (Marker(32, 0, 1), "0 bytes of data"),
        (Marker(32, 2 * GRAIN + 1, 0), "bytes of data"),
        (Marker(32, 2**32 - 1, 0), "bytes of data"),
    ],
)
def test_another_marker_is_refused(found: Marker, message: str) -> None:
    with pytest.raises(InvalidImage, match=message) as caught:
        DECODER.length(found, 2, 4096)
    assert caught.value.fields["offset"] in (4096, 4104)


def test_a_grain_comes_out_whole() -> None:
    assert DECODER.inflate(zlib.compress(CONTENT), 1, 0) == CONTENT
    assert DECODER.inflate(zlib.compress(CONTENT, 0), 1, 0) == CONTENT


def test_the_last_grain_may_be_whole_or_cut_with_the_disk() -> None:
    assert DECODER.inflate(zlib.compress(CONTENT), 3, 0) == CONTENT
    assert DECODER.inflate(zlib.compress(CONTENT[:512]), 3, 0) == CONTENT[:512]


@pytest.mark.parametrize(
    ("data", "grain"),
    [
        (zlib.compress(bytes(GRAIN + 1)), 1),
        (zlib.compress(bytes(50 << 20)), 1),
        (zlib.compress(CONTENT[:-1]), 1),
        (zlib.compress(CONTENT[:512]), 1),
        (zlib.compress(CONTENT[:511]), 3),
        (zlib.compress(CONTENT[:513]), 3),
        (zlib.compress(CONTENT)[:-1], 3),
        (zlib.compress(CONTENT[:512])[:-1], 3),
        (b"\0" * 100, 1),
    ],
)
def test_anything_else_is_refused_with_its_place(data: bytes, grain: int) -> None:
    with pytest.raises(InvalidImage, match=f"grain {grain} at file offset 4096") as caught:
        DECODER.inflate(data, grain, 4096)
    assert (caught.value.fields["offset"], caught.value.fields["block"]) == (4096, grain)
