"""Hostile VMDKs and OVAs: a parser may only raise ImagingError, and what it opens it reads right or not at all."""

from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.digest import digest_device
from imaging.errors import ImagingError, InvalidImage
from imaging.formats import check_image, open_image
from imaging.memory import MemoryDevice
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, Folder, SparseVmdk, StreamVmdk, descriptor, ova

VMDK_SIZE = 20 * GRAIN + 512
VMDK_GRAINS = {number: pattern(GRAIN, number) for number in (7, 0, 20, 1)}


@cache
def sparse_vmdk() -> bytes:
    return SparseVmdk(VMDK_SIZE, VMDK_GRAINS).build()


@cache
def stream_vmdk() -> bytes:
    return StreamVmdk(VMDK_SIZE, VMDK_GRAINS).build()


@cache
def appliance() -> bytes:
    return ova(stream_vmdk())


def survives(content: bytes, form: str | None = None) -> None:
    """Open and read everything: either works or raises ImagingError, nothing else."""
    try:
        image = open_image(MemoryDevice(content), format=form, name="hostile")
    except ImagingError:
        return
    assert check_image(MemoryDevice(content), format=form).virtual_size == image.size
    if image.info.subformat == "streamOptimized" or image.info.format == "ova":
        with suppress(ImagingError):  # a compressed grain can only be judged when it is read
            digest_device(image, threads=1)
    # Whatever the bytes say, any other disk that opened cannot fail later: all was checked at open.
    elif image.size <= 64 * MiB:
        digest_device(image, threads=1)
    else:
        for extent in image.extents(image.size - MiB, MiB):
            image.read_into(extent.offset, memoryview(bytearray(extent.length)))


@pytest.mark.parametrize(
    ("make", "form"),
    [(sparse_vmdk, "vmdk"), (stream_vmdk, "vmdk"), (appliance, "ova")],
    ids=["sparse", "stream", "ova"],
)
def test_no_truncation_passes_unless_the_whole_disk_is_there(make, form) -> None:
    content = make()
    reference = digest_device(open_image(MemoryDevice(content), format=form)).root
    ends = {end + delta for end in range(0, len(content), 512) for delta in (-1, 0, 1)}
    for end in sorted(end for end in ends if 0 <= end < len(content)):
        try:
            image = open_image(MemoryDevice(content[:end]), format=form)
        except InvalidImage:
            continue
        assert digest_device(image).root == reference, f"a short disk at {end}"


@given(st.sampled_from([sparse_vmdk, stream_vmdk, appliance]), st.integers(0, 1 << 40))
def test_single_flipped_bits(make, where: int) -> None:
    content = bytearray(make())
    bit = where % (len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    survives(bytes(content))


@given(st.binary(max_size=4096), st.sampled_from(["vmdk", "ova"]))
def test_any_bytes(content: bytes, form: str) -> None:
    survives(content, form)


def read_all(content: bytes) -> bytes | None:
    """Return the disk, None if it was refused."""
    try:
        image = open_image(MemoryDevice(content), name="hostile")
        return read_bytes(image, 0, image.size)
    except ImagingError:
        return None


def _table_entries(make) -> list[int]:
    """Return where the entries of all tables and directories lie, those behind the disk left out."""
    if make is sparse_vmdk:
        at = SparseVmdk(VMDK_SIZE).places()
        tables = [at["tables"] * 512, at["spare_tables"] * 512]
        directories = [at["directory"] * 512, at["spare"] * 512]
    else:
        end = len(stream_vmdk()) - 3 * 512  # footer marker, footer, end of stream
        directories, tables = [end - 512], [end - 1024 - 2048]
    return directories + [table + 4 * grain for table in tables for grain in range(21)]


@given(st.sampled_from([sparse_vmdk, stream_vmdk]), st.data(), st.integers(0, 31))
def test_a_flipped_bit_of_a_vmdk_table_never_moves_a_grain(make, data, bit: int) -> None:
    """A plain extent has its tables twice, a stream has markers: other content is never believed."""
    content = bytearray(make())
    place = data.draw(st.sampled_from(_table_entries(make)))
    content[place + bit // 8] ^= 1 << bit % 8
    found = read_all(bytes(content))
    if make is stream_vmdk and not any(content[place : place + 4]):
        return  # a grain that nothing names cannot be missed
    assert found is None or found == read_all(make())


@given(st.permutations(range(4)))
def test_swapped_entries_of_a_stream_never_move_a_grain(order: list[int]) -> None:
    image = StreamVmdk(VMDK_SIZE, VMDK_GRAINS)
    places, at = [], 1024
    for number, data in VMDK_GRAINS.items():
        places.append((number, at // 512))
        at += len(image.grain(number, data))
    image.entries = {
        number: places[other][1] for (number, _), other in zip(places, order, strict=True)
    }
    found = read_all(image.build())
    assert (found == read_all(stream_vmdk())) if order == [0, 1, 2, 3] else found is None


VMDK_TEXT = descriptor(
    'RW 4 FLAT "flat.vmdk" 1', "RW 3 ZERO", f'RW {VMDK_SIZE // 512} SPARSE "sparse.vmdk"'
).encode()


@given(
    st.lists(
        st.tuples(st.integers(21, len(VMDK_TEXT)), st.binary(max_size=6), st.integers(0, 4)),
        max_size=4,
    )
)
def test_mutated_descriptor(changes: list[tuple[int, bytes, int]]) -> None:
    content = bytearray(VMDK_TEXT)
    for offset, data, cut in changes:
        content[offset : offset + cut] = data
    files = {"flat.vmdk": pattern(4096), "sparse.vmdk": sparse_vmdk()}
    try:
        image = open_image(MemoryDevice(bytes(content)), name="x.vmdk", siblings=Folder(files))
    except ImagingError:
        return
    if image.size < 64 * MiB:
        digest_device(image, threads=1)


@given(
    st.sampled_from([sparse_vmdk, stream_vmdk, appliance]),
    st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=8)), max_size=4),
    st.booleans(),
)
def test_mutated_vmdk(make, changes: list[tuple[int, bytes]], at_end: bool) -> None:
    content = bytearray(make())
    for offset, data in changes:
        place = len(content) - 1 - offset % len(content) if at_end else offset % len(content)
        content[place : place + len(data)] = data[: len(content) - place]
    survives(bytes(content))


@given(st.binary(min_size=1, max_size=2048))
def test_any_bytes_behind_a_vmdk_signature(content: bytes) -> None:
    survives(b"KDMV\1\0\0\0" + content)
    survives(b"# Disk DescriptorFile\n" + content)
