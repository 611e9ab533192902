"""The header of a qcow2: each field's limits, features by name, names of other files."""

import struct
from typing import Any

import pytest

from imaging.errors import ImagingError, InvalidImage, Truncated, UnsupportedImage
from imaging.formats.qcow2.layout import (
    CompressedCluster,
    Header,
    parse_compressed,
    parse_header,
    parse_names,
)
from tests.support.qcow2_images import FEATURE_NAMES, C, Qcow2, extension, small

TiB = 1 << 40


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def parsed(**fields: Any) -> Header:
    return parse_header(small(**fields).header())


def test_fields() -> None:
    header = parsed(features=3, snapshots=7, autoclear=1)
    assert (header.version, header.cluster_size, header.virtual_size) == (3, C, 8 * C)
    assert (header.l1_entries, header.l1_offset, header.l1_needed) == (1, 3 * C, 1)
    assert (header.refcount_offset, header.refcount_clusters, header.snapshots) == (C, 1, 7)
    assert (header.incompatible, header.autoclear, header.length) == (3, 1, 112)
    assert (header.is_extended, header.has_data_file, header.table_bits) == (False, False, 9)


def test_version_2_has_no_features_whatever_follows_it() -> None:
    header = parsed(version=2, fields={72: b"\xff" * 40})
    assert (header.version, header.incompatible, header.length, header.compression) == (2, 0, 72, 0)


@pytest.mark.parametrize(
    ("size", "extended", "entries"),
    [(1, False, 1), (512 * C, False, 1), (512 * C + 1, False, 2), (256 * C + 1, True, 2)],
)
def test_l1_entries_that_a_size_takes(size: int, extended: bool, entries: int) -> None:
    image = Qcow2(size, extended=extended, cluster_bits=14 if extended else 12)
    if extended:
        image.size = 1024 * image.cluster + 1
    assert parse_header(image.header()).l1_needed == entries


LIES = {
    "magic": ({0: b"QFI\xfa"}, InvalidImage, "it is no qcow2", 0),
    "version-1": ({4: u32(1)}, UnsupportedImage, "qcow version 1", 4),
    "version-0": ({4: u32(0)}, UnsupportedImage, "qcow2 version 0", 4),
    "version-4": ({4: u32(4)}, UnsupportedImage, "qcow2 version 4", 4),
    "backing-name-empty": ({8: u64(120)}, InvalidImage, "has 0 bytes", 8),
    "backing-name-long": ({8: u64(120) + u32(1024)}, InvalidImage, "1024 bytes", 8),
    "backing-name-in-the-header": ({8: u64(111) + u32(1)}, InvalidImage, "offset 111", 8),
    "backing-name-outside": ({8: u64(C - 1) + u32(2)}, InvalidImage, "first cluster", 8),
    "backing-name-far": ({8: u64(1 << 63) + u32(2)}, InvalidImage, "first cluster", 8),
    "cluster-bits-8": ({20: u32(8)}, InvalidImage, "cluster bits 8, expected 9 to 21", 20),
    "cluster-bits-22": ({20: u32(22)}, InvalidImage, "cluster bits 22", 20),
    "cluster-bits-huge": ({20: u32(2**32 - 1)}, InvalidImage, "cluster bits", 20),
    "size-0": ({24: u64(0)}, InvalidImage, "virtual size of 0", 24),
    "size-huge": ({24: u64(64 * TiB + 1)}, UnsupportedImage, "expected at most", 24),
    "aes": ({32: u32(1)}, UnsupportedImage, "encrypted (AES)", 32),
    "luks": ({32: u32(2)}, UnsupportedImage, "encrypted (LUKS)", 32),
    "encryption-3": ({32: u32(3)}, UnsupportedImage, "encrypted (method 3)", 32),
    "l1-short": ({36: u32(0)}, InvalidImage, "0 entries, expected 1 to", 36),
    "l1-long": ({36: u32((1 << 22) + 1)}, InvalidImage, "entries, expected 1 to 4194304", 36),
    "l1-nowhere": ({40: u64(0)}, InvalidImage, "L1 table is at file offset 0", 40),
    "l1-unaligned": ({40: u64(3 * C + 8)}, InvalidImage, "positive multiple of 4096", 40),
    "refcounts-unaligned": ({48: u64(C + 1)}, InvalidImage, "refcount table", 48),
    "refcount-order": ({96: u32(7)}, InvalidImage, "order 7", 96),
    "header-short": ({100: u32(96)}, InvalidImage, "at least 104", 100),
    "header-odd": ({100: u32(109)}, InvalidImage, "multiple of 8", 100),
    "header-long": ({100: u32(C + 8)}, InvalidImage, "up to 4096", 100),
    "compression-without-its-bit": ({104: b"\1"}, InvalidImage, "feature bit", 104),
    "its-bit-without-compression": ({72: u64(8)}, InvalidImage, "feature bit", 104),
    "compression-2": ({72: u64(8), 104: b"\2"}, UnsupportedImage, "compression type 2", 104),
    "subclusters-too-small": ({72: u64(16)}, InvalidImage, "expected 14 to 21", 20),
    "raw-data-file-of-none": ({88: u64(2)}, InvalidImage, "has none", 88),
    "raw-data-file-and-backing": (
        {72: u64(4), 88: u64(2), 8: u64(120) + u32(4)},
        InvalidImage,
        "and a backing file",
        8,
    ),
}


@pytest.mark.parametrize(("fields", "kind", "message", "offset"), LIES.values(), ids=LIES.keys())
def test_every_lie_is_refused(
    fields: dict[int, bytes], kind: type[ImagingError], message: str, offset: int
) -> None:
    with pytest.raises(ImagingError) as caught:
        parsed(fields=fields)
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert caught.value.fields["offset"] == offset


@pytest.mark.parametrize("length", [4, 8, 71, 72, 103])
def test_a_header_that_is_cut_is_refused(length: int) -> None:
    with pytest.raises(Truncated):
        parse_header(small().header()[:length])


def test_a_header_of_104_bytes_has_no_compression_type() -> None:
    head = small(fields={100: u32(104), 104: b"\1"}).header()
    assert parse_header(head).compression == 0


# --- extensions and names


def names(image: Qcow2) -> Any:
    area = image.build()[: image.cluster]
    return parse_names(area, parse_header(area))


@pytest.mark.parametrize("version", [2, 3])
def test_names(version: int) -> None:
    found = names(small(version=version, backing=b"b\xc3\xa4se", backing_format=b"raw"))
    assert (found.backing, found.backing_format, found.data_file) == ("bäse", "raw", "")
    assert names(small(data_file=b"d")).data_file == "d"
    assert names(small()).backing == ""


def test_bytes_that_are_no_text_are_no_printable_name() -> None:
    assert not names(small(backing=b"a\xff")).backing.isprintable()


def test_a_file_that_ends_before_the_name_of_its_backing_file_is_refused() -> None:
    image = small(backing=b"base", backing_format=b"raw")
    whole = image.header()
    header = parse_header(whole)
    for end in range(len(whole)):
        with pytest.raises(InvalidImage):
            parse_names(whole[:end], header)


def test_unknown_extensions_are_passed_over() -> None:
    image = small(extensions=extension(0x12345678, b"whatever") + extension(0x12345678, b""))
    image.backing, image.backing_format = b"base", b"vpc"
    assert names(image).backing_format == "vpc"


def test_extensions_end_where_the_name_of_the_backing_file_begins() -> None:
    image = small(backing=b"\xe2\x79\x2a\xca\0\0\0\3raw\0\0\0\0\0")
    image.fields = {112: extension(0x12345678, b"")}  # where the end stood
    assert names(image).backing_format == ""


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        (struct.pack(">II", 0x12345678, 0xFFFFFFFF), "has 4294967295 bytes"),
        (struct.pack(">II", 0x12345678, C - 112 - 8 + 1), "the area ends at 4096"),
        (extension(0xE2792ACA, b"raw") * 2, "appears twice"),
    ],
    ids=["endless", "outside", "twice"],
)
def test_a_damaged_extension_is_refused(extensions: bytes, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        names(small(extensions=extensions))


def test_features_that_are_not_known_are_refused_by_name() -> None:
    table = struct.pack(">BB46s", 0, 5, b"warp drive") + struct.pack(">BB46s", 1, 63, b"other")
    image = small(features=1 << 5 | 1 << 63, extensions=extension(FEATURE_NAMES, table + b"cut"))
    with pytest.raises(UnsupportedImage) as caught:
        names(image)
    assert "not known: bit 5 ('warp drive'), bit 63" in str(caught.value)
    assert caught.value.fields["found"] == 1 << 5 | 1 << 63


def test_compressed_cluster_descriptors() -> None:
    """Clusters of 64 KiB: 54 bits of offset, 8 of sectors."""
    assert parse_compressed(1 << 62 | 0x12345, 16) == CompressedCluster(0x12345, 512 - 0x145)
    assert parse_compressed(3 << 62 | 5 << 54 | 1024, 16) == CompressedCluster(1024, 6 * 512)
    assert parse_compressed(1 << 62 | 1 << 61 | 3, 9) == CompressedCluster(3, 1024 - 3)
