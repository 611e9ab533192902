"""Hostile bytes: a parser may only raise ImagingError, and what it opens it can read to the end.

Mutations hit the metadata of small hand-built images; the blocks themselves are of no interest.
"""

import struct
import zlib
from contextlib import closing, nullcontext, suppress
from functools import cache

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.digest import digest_device
from imaging.errors import ImagingError, InvalidImage
from imaging.formats import DiskImage, check_image, open_image
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
from tests.support.qcow2_images import Qcow2, deflated

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


@cache
def qcow2(extended: bool = False) -> bytes:
    """Every kind of cluster, in more than one L2 table; small clusters, so that much of it is metadata."""
    bits = 14 if extended else 9
    size, per_table = 1 << bits, 1024 if extended else 64
    clusters = {n: pattern(size, n) for n in (0, 1, 3, per_table)}
    packed = {n: deflated(b"text %d " % n * (size // 8) + bytes(size % 8)) for n in (4, 5)}
    packed = {n: deflated(zlib.decompress(data, -12)[:size]) for n, data in packed.items()}
    bitmaps = {3: 0x00FF00FF | 0xFF00FF00 << 32} if extended else {}
    image = Qcow2(
        *((per_table + 2) * size, clusters, packed, bits), extended=extended, bitmaps=bitmaps
    )
    image.entries = {} if extended else {2: 1}
    return image.build()


def qcow2_subclusters() -> bytes:
    return qcow2(extended=True)


def survives(content: bytes, form: str | None) -> None:
    """Open and read everything: either works or raises ImagingError, nothing else."""
    try:
        image = open_image(MemoryDevice(content), format=form, name="hostile")
    except ImagingError:
        return
    # Whatever the bytes say, a disk that opened cannot fail later: all was checked at open.
    report = check_image(MemoryDevice(content), format=form, name="hostile")
    assert report.virtual_size == image.size
    with suppress(InvalidImage) if image.info.format == "qcow2" else nullcontext():
        reads_to_the_end(image)


def reads_to_the_end(image: DiskImage) -> None:
    """Whatever the bytes say, a disk that opened cannot fail later: all was checked then (but L2 tables of qcow2)."""
    if image.size <= 64 * MiB:
        digest_device(image, threads=1)
    else:
        for extent in image.extents(image.size - MiB, MiB):
            image.read_into(extent.offset, memoryview(bytearray(extent.length)))


@pytest.mark.parametrize(
    ("make", "form", "step"),
    [
        (vhdx, "vhdx", 64 * KiB),
        (dynamic_vhd, "vhd", 512),
        (static_vhd, "vhd", 512),
    ],
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


@given(
    st.sampled_from([vhdx, dynamic_vhd, static_vhd, qcow2, qcow2_subclusters]),
    st.integers(0, 1 << 40),
)
def test_single_flipped_bits(make, where: int) -> None:
    content = bytearray(make())
    limit = BAT_OFFSET + 4096 if make is vhdx else len(content)
    bit = where % (limit * 8)
    content[bit // 8] ^= 1 << bit % 8
    survives(bytes(content), None)


@given(st.binary(max_size=4096), st.sampled_from(["vhd", "vhdx", "qcow2", "raw", None]))
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


# --- qcow2

QCOW2 = pytest.mark.parametrize("make", [qcow2, qcow2_subclusters], ids=["plain", "subclusters"])


def outcome(content: bytes) -> str | None:
    """Return the root of a qcow2, or None if it is refused, at open or where it is read."""
    try:
        return digest_device(open_image(MemoryDevice(content), format="qcow2"), threads=1).root
    except InvalidImage:
        return None


@QCOW2
def test_a_qcow2_cut_inside_its_metadata_or_before_its_last_cluster_is_refused(make) -> None:
    content = make()
    whole, unit = outcome(content), 512 if make is qcow2 else 16 * KiB
    step = unit // 2
    ends = {end + delta for end in range(0, len(content), step) for delta in (-1, 0, 1)}
    for end in sorted(end for end in ends if 0 <= end < len(content)):
        assert outcome(content[:end]) in (None, whole), f"a short disk at {end}"


def test_every_truncation_of_a_qcow2_over_a_backing_file_is_refused_or_the_same_disk() -> None:
    image = Qcow2(130 * 512, {0: pattern(512)}, cluster_bits=9)
    image.backing, image.backing_format = b"base", b"raw"
    content, base = image.build(), {"base": pattern(130 * 512, 2)}
    reference = None
    for end in range(len(content), 0, -1):
        folder = MemoryFolder(base)
        try:
            opened = open_image(MemoryDevice(content[:end]), format="qcow2", siblings=folder)
            with closing(opened):
                root = digest_device(opened, threads=1).root
        except InvalidImage:
            root = None
        assert folder.left_open == 0
        reference = reference or root
        # The last cluster may be cut: its rest reads as zeros.
        assert root in (None, reference) or end > len(content) - 512, f"a short disk at {end}"


@pytest.mark.parametrize("version", [2, 3])
def test_no_flipped_bit_of_a_qcow2_header_gives_other_content_of_the_same_size(version) -> None:
    image = Qcow2(130 * 512, {0: pattern(512), 64: pattern(512, 2)}, cluster_bits=9)
    image.version = version
    content = image.build()
    whole = digest_device(open_image(MemoryDevice(content)))
    for bit in range(112 * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = digest_device(open_image(MemoryDevice(changed), format="qcow2"), threads=1)
        except ImagingError:
            continue
        # Nothing but the size's own low bits may change what is read: nothing guards those.
        assert found == whole or found.virtual_size != whole.virtual_size, f"bit {bit}"


@QCOW2
def test_flipped_bits_of_tables_are_refused_or_change_only_places(make) -> None:
    """All bits of the entries in use: whatever they become, it is read to the end or refused."""
    content = make()
    cluster = 512 if make is qcow2 else 16 * KiB
    tables = 4 * cluster  # the L1 table fits into one cluster
    for start, length in ((3 * cluster, 24), (tables, 96), (tables + cluster, 32)):
        for bit in range(start * 8, (start + length) * 8):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            survives(bytes(changed), "qcow2")


@QCOW2
@given(st.lists(st.tuples(st.integers(0, 100_000), st.binary(min_size=1, max_size=8)), max_size=4))
def test_mutated_qcow2(make, changes: list[tuple[int, bytes]]) -> None:
    content = bytearray(make())
    cluster = 512 if make is qcow2 else 16 * KiB
    places = [*range(120), *range(3 * cluster, 3 * cluster + 24)]
    places += [*range(4 * cluster, 4 * cluster + 112), *range(5 * cluster, 5 * cluster + 32)]
    for where, data in changes:
        offset = places[where % len(places)]
        content[offset : offset + len(data)] = data
    survives(bytes(content), "qcow2")


@given(st.permutations(range(8)), st.permutations(range(2)))
def test_swapped_table_entries_of_a_qcow2(order: list[int], tables: list[int]) -> None:
    """Swapped entries are a sound image of another disk, or refused: never a third thing."""
    content = bytearray(qcow2())
    entries = [bytes(content[2048 + n * 8 : 2056 + n * 8]) for n in order]
    content[2048 : 2048 + 64] = b"".join(entries)
    pointers = [bytes(content[1536 + n * 8 : 1544 + n * 8]) for n in tables]
    content[1536 : 1536 + 16] = b"".join(pointers)
    survives(bytes(content), "qcow2")


@given(st.binary(min_size=1, max_size=2048), st.sampled_from([b"\0\0\0\2", b"\0\0\0\3"]))
def test_any_bytes_behind_a_qcow2_signature(content: bytes, version: bytes) -> None:
    survives((b"QFI\xfb" + version + content).ljust(8 * KiB, b"\0"), None)
