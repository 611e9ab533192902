"""Sparse extents: which directory counts, what must lie apart, and where a stream ends."""

import struct
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import BlockOverlap, ImagingError, InvalidImage, Truncated, UnsupportedImage
from imaging.extent import Extent, Kind
from imaging.formats.vmdk.sparse import SparseExtent, open_sparse
from imaging.formats.vmdk.tables import KeptWindows
from imaging.memory import MemoryDevice
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, SparseVmdk, StreamVmdk, disk_of, marker

GRAINS = {5: pattern(GRAIN, 5), 0: pattern(GRAIN, 0), 6: pattern(GRAIN, 6), 1: pattern(GRAIN, 1)}


def opened(image: SparseVmdk) -> SparseExtent:
    return open_sparse(MemoryDevice(image.build()), KeptWindows())


def refusal(image: SparseVmdk | bytes) -> ImagingError:
    content = image if isinstance(image, bytes) else image.build()
    with pytest.raises(ImagingError) as caught:
        open_sparse(MemoryDevice(content), KeptWindows())
    return caught.value


def plain(**fields: Any) -> SparseVmdk:
    return SparseVmdk(MiB, dict(GRAINS), **fields)


def stream(**fields: Any) -> StreamVmdk:
    return StreamVmdk(MiB, dict(GRAINS), **fields)


@pytest.mark.parametrize("image", [plain(), stream(), stream(has_footer=False)], ids=repr)
def test_grains_in_any_order_make_the_disk(image: SparseVmdk) -> None:
    extent = opened(image)
    assert read_bytes(extent.image, 0, MiB) == disk_of(MiB, GRAINS)
    assert extent.warnings == ()


def test_extents_are_grains() -> None:
    extent = opened(plain(flags=7, entries={2: 1, 3: 1})).image
    assert list(extent.extents(0, 8 * GRAIN)) == [
        Extent(0, 2 * GRAIN, Kind.DATA),
        Extent(2 * GRAIN, 2 * GRAIN, Kind.ZERO),
        Extent(4 * GRAIN, GRAIN, Kind.HOLE),
        Extent(5 * GRAIN, 2 * GRAIN, Kind.DATA),
        Extent(7 * GRAIN, GRAIN, Kind.HOLE),
    ]


def test_a_writer_that_did_not_close_the_image_is_told() -> None:
    extent = opened(plain(dirty=1))
    assert "did not close" in extent.warnings[0]
    assert extent.header.is_dirty


# --- two directories -----------------------------------------------------------------------------


def directory_parts(image: SparseVmdk, name: str, value: int) -> dict[int, bytes]:
    return {image.places()[name] * 512: struct.pack("<I", value)}


@pytest.mark.parametrize(
    ("name", "value"),
    [("directory", 10**6), ("tables", 10**6), ("tables", 1)],
    ids=["table-behind-the-end", "grain-behind-the-end", "grain-in-the-descriptor"],
)
def test_a_damaged_directory_is_replaced_by_the_redundant_one(name: str, value: int) -> None:
    image = plain()
    image.parts = directory_parts(image, name, value)
    extent = opened(image)
    assert read_bytes(extent.image, 0, MiB) == disk_of(MiB, GRAINS)
    assert "damaged" in extent.warnings[0]
    assert "redundant one was used" in extent.warnings[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("spare", 10**6), ("spare", 0), ("spare_tables", 10**6), ("spare_tables", 0)],
)
def test_redundant_tables_that_differ_are_refused_or_told(name: str, value: int) -> None:
    image = plain()
    image.parts = directory_parts(image, name, value)
    outside = (name, value) == ("spare", 10**6)
    if not outside:
        assert "the same grains" in str(refusal(image))
        image.dirty = 1
    extent = opened(image)
    assert read_bytes(extent.image, 0, MiB) == disk_of(MiB, GRAINS)
    assert ("damaged" if outside else "the first was used") in extent.warnings[0]


def test_if_both_are_damaged_the_first_is_what_is_named() -> None:
    image = plain()
    image.parts = directory_parts(image, "tables", 10**6)
    image.parts |= directory_parts(image, "spare_tables", 10**7)
    err = refusal(image)
    assert isinstance(err, Truncated)
    assert err.fields["offset"] == 10**6 * 512


def test_without_a_redundant_directory_there_is_no_second_chance() -> None:
    image = plain(flags=1)
    image.parts = directory_parts(image, "tables", 10**6)
    assert isinstance(refusal(image), Truncated)


def test_a_header_without_a_directory_is_refused() -> None:
    assert "grain directory" in str(refusal(plain(parts={56: bytes(8)})))
    assert "footer" in str(refusal(plain(parts={56: b"\xff" * 8})))


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    ["itself", "between", "before", "directory", "tables", "descriptor"],
)
def test_grains_that_overlap_anything_are_refused(where: str) -> None:
    image = plain(flags=1)
    at = image.places()
    sector = {
        "itself": at["data"],
        "between": at["data"] + 3,
        "directory": at["directory"],
        "tables": at["tables"] + 3,
        "before": at["data"] - 1,
        "descriptor": 1,
    }[where]
    image.entries = {9: sector}
    err = refusal(image)
    assert isinstance(err, BlockOverlap)
    assert "grain" in str(err)


def test_grains_need_not_be_aligned() -> None:
    image = plain(extra=bytes(512))
    assert read_bytes(opened(image).image, 0, MiB) == disk_of(MiB, GRAINS)


def test_the_last_grain_may_be_cut_by_the_disk_and_by_the_file() -> None:
    size = 3 * GRAIN + 512
    image = SparseVmdk(size, {0: pattern(GRAIN), 3: pattern(512, 3)})
    content = image.build()
    disk = disk_of(size, image.grains)
    for end in (len(content), len(content) - GRAIN + 512):
        extent = open_sparse(MemoryDevice(content[:end]), KeptWindows()).image
        assert read_bytes(extent, 0, size) == disk
        assert read_bytes(extent, size - 100, 100) == disk[-100:]
    assert isinstance(refusal(content[: len(content) - GRAIN + 511]), Truncated)


def test_metadata_that_overlap_are_refused() -> None:
    image = plain(flags=1)
    image.parts = {28: struct.pack("<Q", image.places()["directory"])}
    assert isinstance(refusal(image), BlockOverlap)


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"COWD", "COWD"), (b"\xbe\xba\xfe\xca\0\0\0\0", "SESPARSE"), (b"KDMX", "VMDK header")],
)
def test_other_extents_are_refused_by_name(magic: bytes, name: str) -> None:
    err = refusal(magic.ljust(4096, b"\0"))
    assert name in str(err)
    assert isinstance(err, InvalidImage if name == "VMDK header" else UnsupportedImage)


def test_a_file_shorter_than_a_header_is_truncated() -> None:
    assert isinstance(refusal(plain().build()[:511]), Truncated)
    assert isinstance(refusal(b""), InvalidImage)


# --- the end of a stream -------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 511, 512, 1024, 1536, 5000])
def test_a_stream_without_its_end_is_truncated(cut: int) -> None:
    assert isinstance(refusal(stream().build()[:-cut]), Truncated)
    assert isinstance(refusal(stream().build() + bytes(512)), Truncated)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, marker(2, 0, 3), "footer"),
        (0, marker(1, 0, 2), "footer"),
        (0, marker(1, 9, 3), "footer"),
        (512, b"XXXX", "no VMDK header"),
        (512 + 12, struct.pack("<Q", 4096), "another disk"),
        (512 + 20, struct.pack("<Q", 32), "another disk"),
        (512 + 56, b"\xff" * 8, "does not say"),
        (512 + 56, struct.pack("<Q", 10**9), "the file has"),
        (1024, b"\1", "end-of-stream"),
        (1024 + 12, b"\3", "end-of-stream"),
    ],
)
def test_a_footer_that_is_none_is_refused(at: int, data: bytes, message: str) -> None:
    err = refusal(stream(footer_parts={at: data}))
    assert isinstance(err, InvalidImage)
    assert message in str(err)


def test_a_grain_of_a_stream_must_begin_before_its_end() -> None:
    size = len(stream().build()) // 512
    for sector in (size, size - 3, 2**32 - 1):
        assert isinstance(refusal(stream(entries={9: sector})), Truncated)
    opened(stream(entries={9: size - 4}))
