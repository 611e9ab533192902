"""Reading streams: few reads of the file, any window, and damage that is found before a byte is believed."""

import zlib
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import BlockOverlap, ImagingError, InvalidImage, Truncated
from imaging.extent import Extent, Kind
from imaging.formats.base import BaseImage
from imaging.formats.vmdk.sparse import open_sparse
from imaging.formats.vmdk.tables import KeptWindows
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB, pattern
from tests.support.vmdks import GRAIN, StreamVmdk, disk_of

GRAINS = {number: pattern(GRAIN, number) for number in range(64)}
SIZE = 128 * GRAIN


class Counting(MemoryDevice):
    """A file that lists its reads."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, read_only=True)
        self.reads: list[int] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append(len(buffer))
        super().read_into(offset, buffer)


def opened(image: StreamVmdk) -> tuple[BaseImage, Counting]:
    file = Counting(image.build())
    extent = open_sparse(file, KeptWindows()).image
    file.reads.clear()
    return extent, file


def stream(grains: dict[int, bytes] | None = None, **fields: Any) -> StreamVmdk:
    return StreamVmdk(SIZE, GRAINS if grains is None else grains, **fields)


def refusal(image: StreamVmdk) -> ImagingError:
    extent, _ = opened(image)
    with pytest.raises(ImagingError) as caught:
        read_bytes(extent, 0, SIZE)
    return caught.value


def test_neighbours_are_one_read() -> None:
    extent, file = opened(stream())
    assert read_bytes(extent, 0, SIZE) == disk_of(SIZE, GRAINS)
    assert len(file.reads) == 1
    file.reads.clear()
    assert read_bytes(extent, 3 * GRAIN, 8 * GRAIN) == disk_of(SIZE, GRAINS)[3 * GRAIN : 11 * GRAIN]
    assert len(file.reads) == 1
    assert file.reads[0] < 9 * 8500  # not more than the grains and what the next one's place says


def test_reads_are_bounded_however_long_the_run_is() -> None:
    size = 6 * MiB
    grains = {number: pattern(64 * KiB, number) for number in range(96)}
    extent, file = opened(StreamVmdk(size, grains, grain_size=64 * KiB, level=0))
    assert read_bytes(extent, 0, size) == disk_of(size, grains, 64 * KiB)
    assert len(file.reads) <= 4
    assert max(file.reads) <= 2 * MiB + 3 * 64 * KiB


@pytest.mark.parametrize("step", [1000, 4096, GRAIN, 3 * GRAIN + 7, 512 * KiB])
def test_small_steps_inflate_each_grain_about_once(step: int) -> None:
    extent, file = opened(stream())
    disk = disk_of(SIZE, GRAINS)
    for offset in range(0, SIZE, step):
        length = min(step, SIZE - offset)
        assert read_bytes(extent, offset, length) == disk[offset : offset + length]
    assert len(file.reads) <= 64 + 1


def test_grains_in_any_order_are_read_where_they_are() -> None:
    order = sorted(GRAINS, key=lambda number: number * 37 % 64)
    extent, _ = opened(stream({number: GRAINS[number] for number in order}))
    assert read_bytes(extent, 0, SIZE) == disk_of(SIZE, GRAINS)


def test_grains_far_apart_are_read_one_by_one() -> None:
    extent, file = opened(stream(extra=bytes(64 * KiB)))
    assert read_bytes(extent, 0, SIZE) == disk_of(SIZE, GRAINS)
    assert len(file.reads) == 64


def test_stored_and_padded_grains_are_read_even_if_they_are_longer_than_a_grain() -> None:
    # A stream of many empty stored blocks: sound, and half as long again as its content.
    content = pattern(GRAIN)
    packer = zlib.compressobj(0)
    long = packer.compress(content)
    for _ in range(700):
        long += packer.flush(zlib.Z_FULL_FLUSH)
        long += b"\0\0\0\xff\xff"
    long += packer.flush()
    assert GRAIN + 1024 < len(long) <= 2 * GRAIN
    extent, _ = opened(stream({3: content}, raw={3: long}))
    assert read_bytes(extent, 3 * GRAIN, GRAIN) == content


def test_extents_say_data_for_every_grain_that_is_there() -> None:
    extent, file = opened(stream({0: bytes(GRAIN), 1: GRAINS[1], 5: GRAINS[5]}))
    assert list(extent.extents(100, 5 * GRAIN)) == [
        Extent(100, 2 * GRAIN - 100, Kind.DATA),
        Extent(2 * GRAIN, 3 * GRAIN, Kind.HOLE),
        Extent(5 * GRAIN, 100, Kind.DATA),
    ]
    assert file.reads == []


def test_a_zero_entry_reads_as_zeros() -> None:
    extent, _ = opened(stream({0: GRAINS[0]}, flags=0x30005, entries={1: 1}))
    assert list(extent.extents(GRAIN, GRAIN)) == [Extent(GRAIN, GRAIN, Kind.ZERO)]
    assert read_bytes(extent, GRAIN, GRAIN) == bytes(GRAIN)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
def test_the_last_grain_may_be_cut(whole: bool) -> None:
    size = 2 * GRAIN + 512
    last = pattern(GRAIN, 9)
    raw = {} if whole else {2: zlib.compress(last[:512])}
    extent, _ = opened(StreamVmdk(size, {0: GRAINS[0], 2: last}, raw=raw))
    disk = disk_of(size, {0: GRAINS[0], 2: last[:512]})
    assert read_bytes(extent, 0, size) == disk
    assert read_bytes(extent, size - 100, 100) == disk[-100:]
    assert read_bytes(extent, 2 * GRAIN + 5, 10) == last[5:15]


def test_swapped_entries_are_found_by_the_markers() -> None:
    image = stream()
    content = image.build()
    first = 2  # header and descriptor, a sector each
    second = first + len(image.grain(0, GRAINS[0])) // 512
    err = refusal(stream(entries={0: second, 1: first}))
    assert isinstance(err, InvalidImage)
    assert "expected 0 (grain 0)" in str(err)
    assert len(content) > 0


def test_two_entries_for_one_grain_are_found() -> None:
    assert "the marker at" in str(refusal(stream({0: GRAINS[0]}, entries={7: 2})))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"markers": {5: 81}}, "expected 80"),
        ({"raw": {5: b""}}, "0 bytes of data"),
        ({"raw": {5: b"x" * 300}}, "damaged"),
        ({"raw": {5: b"x" * (2 * GRAIN + 1)}}, "bytes of data"),
    ],
)
def test_damaged_grains_are_errors_with_their_place(fields: dict[str, Any], message: str) -> None:
    err = refusal(stream(**fields))
    assert isinstance(err, InvalidImage)
    assert message in str(err)
    assert err.fields["offset"] > 0


def test_a_grain_that_runs_into_the_next_is_refused() -> None:
    image = stream()
    where = 2 * 512 + len(image.grain(0, GRAINS[0]))
    image.parts = {where + 8: (15000).to_bytes(4, "little")}
    assert isinstance(refusal(image), BlockOverlap)


def test_a_grain_that_runs_over_the_end_is_refused() -> None:
    image = stream({0: GRAINS[0]})
    image.parts = {2 * 512 + 8: (16000).to_bytes(4, "little")}
    assert isinstance(refusal(image), Truncated)


def test_an_error_leaves_the_image_usable() -> None:
    extent, _ = opened(stream(markers={5: 81}))
    with pytest.raises(InvalidImage):
        read_bytes(extent, 0, SIZE)
    assert read_bytes(extent, 6 * GRAIN, GRAIN) == GRAINS[6]
