"""Header and markers of sparse extents: every field that can be wrong is refused with its offset."""

import struct

import pytest

from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.vmdk.layout import Marker, parse_header, parse_marker
from tests.support.vmdks import IN_FOOTER, MiB, SparseVmdk, StreamVmdk, marker

PLAIN = SparseVmdk(MiB).header(directory=50, spare=40)
STREAM = StreamVmdk(MiB).header(directory=IN_FOOTER, compression=1)


def changed(block: bytes, offset: int, form: str, value: int) -> bytes:
    content = bytearray(block)
    struct.pack_into("<" + form, content, offset, value)
    return bytes(content)


def test_a_plain_header() -> None:
    header = parse_header(PLAIN, 0)
    assert (header.capacity, header.grain_size, header.version) == (MiB, 8192, 1)
    assert (header.directory_offset, header.redundant_offset) == (50 * 512, 40 * 512)
    assert (header.descriptor_offset, header.descriptor_size) == (512, 512)
    assert (header.is_compressed, header.is_dirty, header.zero_grains) == (False, False, False)
    assert (header.grains, header.tables) == (128, 1)


def test_a_stream_header_leaves_the_directory_to_the_footer() -> None:
    header = parse_header(STREAM, 0)
    assert (header.directory_offset, header.redundant_offset) == (None, None)
    assert header.is_compressed


def test_a_last_grain_and_a_last_table_may_be_cut() -> None:
    header = parse_header(SparseVmdk(512 * 8192 + 512).header(directory=9), 0)
    assert (header.grains, header.tables) == (513, 2)


def test_flags_and_state_are_told() -> None:
    header = parse_header(SparseVmdk(MiB, flags=5, dirty=1).header(directory=9, spare=8), 0)
    assert (header.zero_grains, header.is_dirty, header.redundant_offset) == (True, True, None)


@pytest.mark.parametrize(
    ("offset", "form", "value", "error"),
    [
        (0, "I", 0, InvalidImage),
        (4, "I", 0, UnsupportedImage),
        (4, "I", 4, UnsupportedImage),
        (8, "I", 0x10003, UnsupportedImage),
        (8, "I", 0x20003, UnsupportedImage),
        (8, "I", 0x30003, UnsupportedImage),
        (12, "Q", 0, InvalidImage),
        (12, "Q", 2**37 + 1, InvalidImage),
        (12, "Q", 2**64 - 1, InvalidImage),
        (20, "Q", 0, InvalidImage),
        (20, "Q", 8, InvalidImage),
        (20, "Q", 24, InvalidImage),
        (20, "Q", 131072, InvalidImage),
        (20, "Q", 2**63, InvalidImage),
        (36, "Q", 0, InvalidImage),
        (36, "Q", 2049, InvalidImage),
        (44, "I", 0, InvalidImage),
        (44, "I", 511, InvalidImage),
        (44, "I", 1024, InvalidImage),
        (73, "I", 0x0A0A200A, InvalidImage),
        (77, "H", 1, UnsupportedImage),
    ],
)
def test_what_breaks_the_rules_is_refused(
    offset: int, form: str, value: int, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        parse_header(changed(PLAIN, offset, form, value), 1024)
    assert caught.value.fields["offset"] in (1024 + offset, 1024 + 77)  # type: ignore[attr-defined]


@pytest.mark.parametrize("compression", [0, 2])
def test_a_stream_must_be_deflated(compression: int) -> None:
    with pytest.raises(UnsupportedImage, match="compression"):
        parse_header(changed(STREAM, 77, "H", compression), 0)


def test_the_newline_test_counts_only_where_the_flag_says_so() -> None:
    assert parse_header(changed(changed(PLAIN, 8, "I", 2), 73, "I", 0), 0).capacity == MiB


@pytest.mark.parametrize("grain", [16, 128, 65536])
def test_every_grain_size_of_the_specification_passes(grain: int) -> None:
    assert parse_header(changed(PLAIN, 20, "Q", grain), 0).grain_size == grain * 512


def test_a_short_block_is_no_header() -> None:
    with pytest.raises(InvalidImage):
        parse_header(PLAIN[:511], 0)


def test_markers() -> None:
    assert parse_marker(marker(7, 0, 3)) == Marker(7, 0, 3)
    assert parse_marker(bytes(5) + marker(2**40, 99, 1), 5) == Marker(2**40, 99, 1)
