"""Hostile bytes: a parser may only raise ImagingError, and what it opens it can read to the end.

Mutations hit the metadata of small hand-built images; the blocks themselves are of no interest.
"""

import struct
from functools import cache

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.digest import digest_device
from imaging.errors import ImagingError, InvalidImage
from imaging.formats import check_image, open_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, vhd_chain, vhdx_chain
from tests.support.disks import (
    BAT_OFFSET,
    METADATA_OFFSET,
    DynamicVhd,
    KiB,
    MiB,
    Vhdx,
    fixed_vhd,
    pattern,
    vhd_sum,
)

VHDX_SIZE, VHD_SIZE, FIXED_SIZE = 3 * MiB, 64 * KiB, 8 * KiB


@cache
def vhdx() -> bytes:
    return Vhdx(VHDX_SIZE, {0: pattern(MiB), 2: pattern(MiB, 2)}).build()


@cache
def dynamic_vhd() -> bytes:
    blocks = {0: pattern(4 * KiB), 7: pattern(4 * KiB, 2)}
    return DynamicVhd(VHD_SIZE, blocks, block_size=4 * KiB).build()


@cache
def static_vhd() -> bytes:
    return fixed_vhd(pattern(FIXED_SIZE))


def survives(content: bytes, form: str | None) -> None:
    """Open and read everything: either works or raises ImagingError, nothing else."""
    try:
        image = open_image(MemoryDevice(content), format=form, name="hostile")
    except ImagingError:
        return
    # Whatever the bytes say, a disk that opened cannot fail later: all was checked at open.
    report = check_image(MemoryDevice(content), format=form, name="hostile")
    assert report.virtual_size == image.size
    if image.size <= 64 * MiB:
        digest_device(image, threads=1)
    else:
        for extent in image.extents(image.size - MiB, MiB):
            image.read_into(extent.offset, memoryview(bytearray(extent.length)))


@pytest.mark.parametrize(
    ("make", "form", "step"),
    [(vhdx, "vhdx", 64 * KiB), (dynamic_vhd, "vhd", 512), (static_vhd, "vhd", 512)],
    ids=["vhdx", "vhd-dynamic", "vhd-fixed"],
)
def test_no_truncation_passes_unless_the_whole_disk_is_there(make, form, step) -> None:
    content = make()
    reference = digest_device(open_image(MemoryDevice(content), format=form)).root
    ends = {end + delta for end in range(0, len(content), step) for delta in (-1, 0, 1)}
    for end in sorted(end for end in ends if 0 <= end < len(content)):
        try:
            image = open_image(MemoryDevice(content[:end]), format=form)
        except InvalidImage:
            continue
        assert digest_device(image).root == reference, f"a short disk at {end}"


VHDX_RANGES = ((0, 16), (64 * KiB, 96), (192 * KiB, 96), (METADATA_OFFSET, 224))
VHDX_PLACES = [
    offset for start, length in VHDX_RANGES for offset in range(start, start + length)
] + [*range(METADATA_OFFSET + 65536, METADATA_OFFSET + 65580), *range(BAT_OFFSET, BAT_OFFSET + 32)]


@given(
    st.lists(st.tuples(st.sampled_from(VHDX_PLACES), st.binary(min_size=1, max_size=8)), max_size=4)
)
def test_mutated_vhdx(changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(vhdx())
    for offset, data in changes:
        content[offset : offset + len(data)] = data
    # The same lies in both copies, with checksums made right: else the checksums would hide them.
    for first, second, size in ((64, 128, 4096), (192, 256, 65536)):
        block = bytearray(content[first * KiB : first * KiB + size])
        block[4:8] = bytes(4)
        block[4:8] = struct.pack("<I", google_crc32c.value(bytes(block)))
        for place in (first, second):
            content[place * KiB : place * KiB + size] = block
    survives(bytes(content), "vhdx")


@given(
    st.lists(st.tuples(st.integers(0, 1600), st.binary(min_size=1, max_size=8)), max_size=4),
    st.booleans(),
)
def test_mutated_vhd(changes: list[tuple[int, bytes]], keep_checksums: bool) -> None:
    content = bytearray(dynamic_vhd())
    for offset, data in changes:
        content[offset : offset + len(data)] = data
    if not keep_checksums:
        content[512:1536] = vhd_sum(bytes(content[512:1536]), 36)
        content[:512] = content[-512:] = vhd_sum(bytes(content[:512]), 64)
    survives(bytes(content), "vhd")


@given(st.sampled_from([vhdx, dynamic_vhd, static_vhd]), st.integers(0, 1 << 40))
def test_single_flipped_bits(make, where: int) -> None:
    content = bytearray(make())
    limit = BAT_OFFSET + 4096 if make is vhdx else len(content)
    bit = where % (limit * 8)
    content[bit // 8] ^= 1 << bit % 8
    survives(bytes(content), None)


@given(st.binary(max_size=4096), st.sampled_from(["vhd", "vhdx", "raw", None]))
def test_any_bytes(content: bytes, form: str | None) -> None:
    survives(content, form)


@given(st.binary(min_size=1, max_size=2048))
def test_any_bytes_behind_a_vhdx_signature(content: bytes) -> None:
    survives((b"vhdxfile" + content).ljust(5 * MiB, b"\0"), None)


# --- differencing images: the child lies, its parent is sound ------------------------------------


@cache
def chain(form: str) -> tuple[dict[str, bytes], str]:
    """A chain of two; the child's second block is mixed."""
    writes = [(512 * place, pattern(512, place)) for place in (0, 9, 2049, 2051)]
    if form == "vhdx":
        files = vhdx_chain([(VHDX_SIZE, [(0, pattern(VHDX_SIZE))]), (VHDX_SIZE, writes)])
    else:
        layers = [(VHD_SIZE, [(0, pattern(VHD_SIZE))]), (VHD_SIZE, writes[:2])]
        files = vhd_chain(layers, block_size=4 * KiB)
    return files, list(files)[1]


def survives_over_its_parent(content: bytes, form: str) -> None:
    """As `survives`, beside the sound parent."""
    files, name = chain(form)
    folder = MemoryFolder(files)
    try:
        image = open_image(MemoryDevice(content), format=form, name=name, siblings=folder)
    except ImagingError:
        assert folder.left_open == 0
        return
    check_image(MemoryDevice(content), format=form, name=name, siblings=folder)
    if image.size <= 64 * MiB:
        digest_device(image, threads=1)
    image.close()
    assert folder.left_open == 0


CHILD_PLACES = {
    "vhdx": [
        *VHDX_PLACES,
        *range(METADATA_OFFSET + 65580, METADATA_OFFSET + 65900),
        *range(BAT_OFFSET + 4096 * 8, BAT_OFFSET + 4097 * 8),
    ],
    "vhd": [*range(512, 1120), *range(2048, 2560), *range(2560, 2624)],
}


@pytest.mark.parametrize("form", ["vhd", "vhdx"])
def test_no_truncated_child_is_another_disk(form: str) -> None:
    files, name = chain(form)
    whole = files[name]
    folder = MemoryFolder(files)
    image = open_image(MemoryDevice(whole), format=form, name=name, siblings=folder)
    reference = digest_device(image, threads=1).root
    step = 64 * KiB if form == "vhdx" else 512
    for end in sorted(
        {end + delta for end in range(step, len(whole), step) for delta in (-1, 0, 1)}
    ):
        try:
            image = open_image(MemoryDevice(whole[:end]), format=form, name=name, siblings=folder)
        except ImagingError:
            continue
        assert digest_device(image, threads=1).root == reference, f"another disk at {end}"


@given(st.data())
@pytest.mark.parametrize("form", ["vhd", "vhdx"])
def test_mutated_children(form: str, data: st.DataObject) -> None:
    files, name = chain(form)
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.sampled_from(CHILD_PLACES[form]))
        change = data.draw(st.binary(min_size=1, max_size=8))
        content[offset : offset + len(change)] = change
    if form == "vhd":
        content[512:1536] = vhd_sum(bytes(content[512:1536]), 36)
    survives_over_its_parent(bytes(content), form)


@pytest.mark.parametrize("form", ["vhd", "vhdx"])
def test_every_flipped_bit_of_a_locator(form: str) -> None:
    files, name = chain(form)
    places = {
        "vhd": range(2048, 2112),
        "vhdx": range(METADATA_OFFSET + 65568, METADATA_OFFSET + 65800),
    }
    for bit in (8 * place + number for place in places[form] for number in range(8)):
        content = bytearray(files[name])
        content[bit // 8] ^= 1 << bit % 8
        folder = MemoryFolder(files)
        try:
            image = open_image(
                MemoryDevice(bytes(content)), format=form, name=name, siblings=folder
            )
        except ImagingError:
            continue
        assert image.info.parent == next(iter(files))
