"""VMDK structures: their bytes by the specification's tables."""

import struct
import zlib
from array import array
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.formats.vmdk import build, layout
from imaging.units import SECTOR_SIZE, GiB, MiB, TiB

SECTORS = st.integers(0, 2**64 - 2).map(SECTOR_SIZE.__mul__)
ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


def test_header_is_what_the_specification_draws():
    header = build.written_header(3, MiB, directory=1, redundant=None, overhead=128)
    block = layout.build_header(replace(header, directory_offset=None))
    assert len(block) == 512
    assert block[:12] == b"KDMV" + struct.pack("<II", 3, 0x30001)
    assert struct.unpack_from("<4QI3Q", block, 12) == (2048, 128, 1, 20, 512, 0, 2**64 - 1, 128)
    assert block[72:79] == b"\0\n \r\n\1\0"  # clean, newlines unharmed, deflate
    assert not any(block[79:])


def test_only_compressed_files_name_a_compression():
    header = build.written_header(1, MiB, directory=26, redundant=21, overhead=128)
    block = layout.build_header(header)
    assert struct.unpack_from("<I", block, 8) == (3,)
    assert struct.unpack_from("<3Q", block, 48) == (21, 26, 128)
    assert block[77:79] == b"\0\0"


@given(
    st.builds(
        layout.SparseHeader,
        version=st.sampled_from(layout.VERSIONS),
        capacity=st.integers(1, 2**37).map(SECTOR_SIZE.__mul__),
        grain_size=st.integers(13, 25).map((1).__lshift__),
        descriptor_offset=SECTORS,
        descriptor_size=st.integers(1, 2048).map(SECTOR_SIZE.__mul__),
        redundant_offset=st.none() | SECTORS,
        directory_offset=st.none() | SECTORS,
        overhead=SECTORS,
        is_dirty=st.booleans(),
        zero_grains=st.booleans(),
        is_compressed=st.booleans(),
    )
)
def test_a_header_that_is_built_is_read_as_it_was(header):
    assert layout.parse_header(layout.build_header(header), 0) == header


@pytest.mark.parametrize("kind", layout.MarkerType)
def test_a_marker_is_a_sector_with_size_0(kind):
    block = layout.build_marker(kind, 4)
    assert struct.unpack_from("<QII", block) == (4, 0, kind)
    assert (len(block), any(block[16:])) == (512, False)


@pytest.mark.parametrize("length", [1, 499, 500, 501, 65552])
def test_a_grain_is_padded_to_sectors_and_found_again(length):
    grains = layout.build_grain(2**33, b"x" * length) + layout.build_grain(128, b"y")
    assert struct.unpack_from("<QI", grains) == (2**33, length)
    assert grains[12 : 12 + length] == b"x" * length
    sectors = -(-(12 + length) // 512)
    assert not any(grains[12 + length : sectors * 512])
    assert list(build.grains_of(grains)) == [(2**33, sectors), (128, 1)]


def test_tables_are_little_endian_and_whole_sectors():
    block = build.build_table(array("I", [1, 0xFFFFFFFE]))
    assert block == bytes.fromhex("01000000feffffff").ljust(512, b"\0")


@pytest.mark.parametrize(
    ("size", "count", "directories", "overhead"),
    [
        (512, 1, (21, 26), 128),
        (32 * MiB, 1, (21, 26), 128),
        (32 * MiB + 512, 2, (21, 30), 128),
        (4 * GiB, 128, (21, 534), 1152),  # one sector of directory, exactly
        (4 * GiB + 512, 129, (21, 539), 1152),
        (64 * TiB, 2**21, (21, 21 + 2**14 + 2**23), 16810112),
    ],
)
def test_tables_lie_behind_their_directories(size, count, directories, overhead):
    tables = build.Tables.of(size)
    assert (tables.count, tables.directories, tables.overhead) == (count, directories, overhead)
    first, second = directories
    places = tables.places(second)
    assert len(places) == count
    assert places[0] == second + -(-count // 128)
    assert places[-1] + 4 <= overhead
    assert tables.places(first)[-1] + 4 == second


def test_descriptor_of_a_disk():
    text = build.build_descriptor("streamOptimized", "golden image.vmdk", 8 * GiB // 512, ID)
    assert len(text) == 20 * 512
    lines = text.rstrip(b"\0").decode().splitlines()
    assert lines[0] == "# Disk DescriptorFile"
    assert {"version=1", "parentCID=ffffffff", 'createType="streamOptimized"'} <= set(lines)
    assert 'RW 16777216 SPARSE "golden image.vmdk"' in lines
    assert 'ddb.geometry.cylinders = "1045"' in lines
    assert {'ddb.geometry.heads = "255"', 'ddb.geometry.sectors = "63"'} <= set(lines)
    assert 'ddb.adapterType = "lsilogic"' in lines


@pytest.mark.parametrize("name", ['a".vmdk', "a\nRW 1 FLAT", "../a", "C:\\a"])
def test_a_name_cannot_write_into_the_descriptor(name):
    text = build.build_descriptor("streamOptimized", name, 2048, ID)
    assert b'RW 2048 SPARSE "disk.vmdk"\n' in text


def test_the_longest_name_leaves_room():
    text = build.build_descriptor("monolithicSparse", "\U0001f4bf" * 63, 2**37, ID)
    assert len(text) == 20 * 512


@pytest.mark.parametrize(("number", "cid"), [(0, 0), (0xFFFFFFFD, 0xFFFFFFFD), (2**128 - 1, None)])
def test_a_content_id_is_never_one_that_means_something_else(number, cid):
    found = build.cid_of(UUID(int=number))
    assert 0 <= found < 0xFFFFFFFE
    assert cid is None or found == cid


def test_small_disks_have_the_small_geometry():
    text = build.build_descriptor("streamOptimized", "a", GiB // 512, ID)
    assert b'cylinders = "1024"\nddb.geometry.heads = "64"\nddb.geometry.sectors = "32"' in text


def test_a_grain_of_zlib_inflates():
    block = layout.build_grain(0, zlib.compress(b"disk"))
    size = int.from_bytes(block[8:12], "little")
    assert zlib.decompress(block[12 : 12 + size]) == b"disk"
