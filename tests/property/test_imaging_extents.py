"""Whatever blocks an image has, extents tile every window and tell the truth about it."""

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from imaging.device import BlockDevice, read_bytes
from imaging.filedev import FileDevice
from imaging.formats import open_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder
from tests.support.disks import DynamicVhd, KiB, MiB, Vhdx, pattern, write_sparse
from tests.support.qcow2_images import Qcow2, deflated
from tests.support.vmdks import GRAIN, Folder, SparseVmdk, StreamVmdk, disk_of


def check(device: BlockDevice, expected: bytes, one: int, two: int) -> None:
    first, second = one % (device.size + 1), two % (device.size + 1)
    offset, length = min(first, second), abs(first - second)
    assert read_bytes(device, offset, length) == expected[offset : offset + length]
    position = offset
    for extent in device.extents(offset, length):
        assert extent.offset == position
        assert extent.length > 0
        if not extent.is_data:
            assert not any(expected[extent.offset : extent.end])
        position = extent.end
    assert position == offset + length


windows = st.integers(0, 1 << 30)
places = st.permutations(range(8)).flatmap(
    lambda order: st.integers(0, 8).map(lambda count: order[:count])
)


@given(places, st.dictionaries(st.integers(0, 7), st.sampled_from([0, 1, 2, 3])), windows, windows)
def test_vhdx(order: list[int], states: dict[int, int], one: int, two: int) -> None:
    size = 7 * MiB + 512
    blocks = {block: pattern(MiB, block) for block in order}
    image = Vhdx(size, blocks, states={b: s for b, s in states.items() if b not in blocks})
    disk = b"".join(blocks.get(block, bytes(MiB)) for block in range(8))[:size]
    check(open_image(MemoryDevice(image.build()), format="vhdx"), disk, one, two)


@given(places, windows, windows)
def test_dynamic_vhd(order: list[int], one: int, two: int) -> None:
    size, block_size = 7 * 4096 + 512, 4096
    blocks = {block: pattern(block_size, block) for block in order}
    disk = b"".join(blocks.get(block, bytes(block_size)) for block in range(8))[:size]
    image = DynamicVhd(size, blocks, block_size=block_size).build()
    check(open_image(MemoryDevice(image), format="vhd"), disk, one, two)


@given(
    places,
    st.dictionaries(st.integers(0, 7), st.sampled_from(["zero", "packed"])),
    windows,
    windows,
)
def test_qcow2(order: list[int], others: dict[int, str], one: int, two: int) -> None:
    size, cluster = 7 * 512 + 300, 512
    disk = {number: pattern(cluster, number) for number in order}
    packed = {
        number: b"qcow2".ljust(cluster, b"%d" % number)
        for number, kind in others.items()
        if number not in disk and kind == "packed"
    }
    zeros = {number: 1 for number, kind in others.items() if number not in disk and kind == "zero"}
    image = Qcow2(
        *(size, disk, {number: deflated(data) for number, data in packed.items()}),
        cluster_bits=9,
        entries=zeros,
    )
    whole = b"".join((disk | packed).get(number, bytes(cluster)) for number in range(8))
    check(open_image(MemoryDevice(image.build()), format="qcow2"), whole[:size], one, two)


bitmaps = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


@given(st.dictionaries(st.integers(0, 2), bitmaps, min_size=1), windows, windows)
def test_qcow2_subclusters(chosen: dict[int, tuple[int, int]], one: int, two: int) -> None:
    cluster, base = 16 * KiB, pattern(40 * KiB, 99)
    disk = bytearray(base.ljust(3 * cluster, b"\0"))
    for number, (allocated, zero) in chosen.items():
        data = pattern(cluster, number)
        for bit in range(32):
            at = bit * 512
            part = slice(number * cluster + at, number * cluster + at + 512)
            if allocated >> bit & 1:
                disk[part] = data[at : at + 512]
            elif zero >> bit & 1:
                disk[part] = bytes(512)
    image = Qcow2(
        *(3 * cluster, {number: pattern(cluster, number) for number in chosen}),
        cluster_bits=14,
        extended=True,
        bitmaps={n: taken | (zero & ~taken) << 32 for n, (taken, zero) in chosen.items()},
        backing=b"base",
        backing_format=b"raw",
    )
    file = MemoryDevice(image.build())
    with closing(open_image(file, format="qcow2", siblings=MemoryFolder({"base": base}))) as opened:
        check(opened, bytes(disk), one, two)


@given(
    places, st.sets(st.integers(0, 7)), st.sampled_from([SparseVmdk, StreamVmdk]), windows, windows
)
def test_vmdk(
    order: list[int], zeros: set[int], kind: type[SparseVmdk], one: int, two: int
) -> None:
    size = 7 * GRAIN + 512
    grains = {grain: pattern(GRAIN, grain) for grain in order}
    entries = {grain: 1 for grain in zeros if grain not in grains}
    image = kind(size, grains, entries=entries)
    image.flags |= 4
    check(open_image(MemoryDevice(image.build()), format="vmdk"), disk_of(size, grains), one, two)


@given(places, places, st.sets(st.integers(0, 7)), windows, windows)
def test_vmdk_delta(top: list[int], base: list[int], zeros: set[int], one: int, two: int) -> None:
    size = 7 * GRAIN + 512
    below = {grain: pattern(GRAIN, grain) for grain in base}
    above = {grain: pattern(GRAIN, 20 + grain) for grain in top}
    hidden = {grain: bytes(GRAIN) for grain in zeros if grain not in above}
    image = SparseVmdk(size, above, flags=7, entries=dict.fromkeys(hidden, 1), parent=("1", "base"))
    folder = Folder({"base": StreamVmdk(size, below, cid="1").build()})
    disk = open_image(MemoryDevice(image.build()), name="top.vmdk", siblings=folder)
    check(disk, disk_of(size, below | hidden | above), one, two)


@given(st.dictionaries(st.integers(0, 63), st.integers(1, 3)), windows, windows)
def test_sparse_file(pages: dict[int, int], one: int, two: int) -> None:
    size, disk = 256 * KiB - 100, bytearray(256 * KiB)
    parts = {
        page * 4096: pattern(count * 4096, page)[: size - page * 4096]
        for page, count in pages.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        path = write_sparse(Path(folder) / "disk", size, parts)
        for offset, data in parts.items():
            disk[offset : offset + len(data)] = data
        file = FileDevice(path)
        try:
            check(file, bytes(disk[:size]), one, two)
        finally:
            file.close()
