"""The contract of BlockDevice, asked of every device: memory, file, overlay, and the disk inside each format."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from imaging.counting import CountingDevice
from imaging.device import BlockDevice, read_bytes
from imaging.errors import DeviceClosed, OutOfRange, ReadOnlyDevice
from imaging.filedev import FileDevice
from imaging.formats import edit_image, open_image
from imaging.memory import MemoryDevice
from imaging.offset import OffsetDevice
from imaging.overlay import OverlayDevice
from imaging.siblings import LocalFolder
from tests.support.chains import MemoryFolder, Writes, vhd_chain, vhdx_chain
from tests.support.disks import DynamicVhd, KiB, MiB, Vhdx, fixed_vhd, pattern, write_sparse
from tests.support.qcow2_images import Qcow2, deflated
from tests.support.vmdks import GRAIN, Folder, SparseVmdk, StreamVmdk, descriptor, ova

SIZE = 3 * MiB + 512 * KiB
FIRST, LAST = pattern(70_000, 1), pattern(MiB, 2)
PARTS = {100: FIRST, 2 * MiB + 512 * KiB: LAST}
"""A first and a last piece, and zeros between them."""


def content() -> bytes:
    disk = bytearray(SIZE)
    for offset, data in PARTS.items():
        disk[offset : offset + len(data)] = data
    return bytes(disk)


def _memory(_folder: Path) -> BlockDevice:
    device = MemoryDevice(SIZE)
    for offset, data in PARTS.items():
        device.write(offset, data)
    return device


def _file(folder: Path) -> BlockDevice:
    return FileDevice(write_sparse(folder / "disk.raw", SIZE, PARTS), writable=True)


def _read_only_file(folder: Path) -> BlockDevice:
    return FileDevice(write_sparse(folder / "disk.raw", SIZE, PARTS))


def _raw(folder: Path) -> BlockDevice:
    return open_image(_read_only_file(folder), format="raw")


def _raw_in_place(folder: Path) -> BlockDevice:
    return edit_image(
        FileDevice(write_sparse(folder / "disk.raw", SIZE, PARTS), writable=True), format="raw"
    )


def _fixed_vhd(_folder: Path) -> BlockDevice:
    return open_image(MemoryDevice(fixed_vhd(content())))


def _dynamic_vhd(_folder: Path) -> BlockDevice:
    disk, size = content(), 512 * KiB
    blocks = {block: disk[block * size : (block + 1) * size] for block in (6, 0, 5)}
    return open_image(MemoryDevice(DynamicVhd(SIZE, blocks).build()))


def _vhdx_file() -> MemoryDevice:
    disk = content()
    blocks = {block: disk[block * MiB : (block + 1) * MiB] for block in (2, 3, 0)}
    return MemoryDevice(Vhdx(SIZE, blocks, states={1: 2}).build())


def _vhdx(_folder: Path) -> BlockDevice:
    return open_image(_vhdx_file())


def _vhdx_in_place(_folder: Path) -> BlockDevice:
    return edit_image(_vhdx_file(), format="vhdx")


def _chain(
    make: Callable[[list[tuple[int, Writes]]], dict[str, bytes]],
    form: str,
    *,
    writable: bool = False,
) -> BlockDevice:
    """The parts in a base that is too short, and in two children: one changes it back."""
    disk = content()
    start = 2 * MiB + 512 * KiB
    layers: list[tuple[int, Writes]] = [
        (MiB, [(0, disk[: 64 * KiB]), (256 * KiB, pattern(4 * KiB, 3))]),
        (SIZE, [(64 * KiB, disk[64 * KiB : 128 * KiB]), (256 * KiB, bytes(4 * KiB))]),
        (SIZE, [(start, disk[start:])]),
    ]
    files = make(layers)
    name = list(files)[-1]
    file = MemoryDevice(files[name])
    if writable:
        return edit_image(file, format=form, name=name, siblings=MemoryFolder(files))
    return open_image(file, format=form, name=name, siblings=MemoryFolder(files))


def _qcow2(_folder: Path) -> BlockDevice:
    disk, size = content(), 64 * KiB
    clusters = {n: disk[n * size : (n + 1) * size] for n in (55, *range(40, 54), 1, 0)}
    packed = {54: deflated(disk[54 * size : 55 * size])}
    image = Qcow2(SIZE, clusters, packed, cluster_bits=16, entries={2: 1})
    return open_image(MemoryDevice(image.build()))


def _qcow2_subclusters(_folder: Path) -> BlockDevice:
    disk, size = content(), 128 * KiB
    clusters = {n: disk[n * size : (n + 1) * size] for n in (*range(20, 28), 0)}
    bitmaps = {0: 0x0003FFFF | 0x00F00000 << 32}
    image = Qcow2(SIZE, clusters, cluster_bits=17, extended=True, bitmaps=bitmaps)
    return open_image(MemoryDevice(image.build()))


def _qcow2_chain(folder: Path) -> BlockDevice:
    disk, size = content(), 64 * KiB
    (folder / "base.raw").write_bytes(disk[: 2 * MiB + 700 * KiB])
    clusters = {n: disk[n * size : (n + 1) * size] for n in range(42, 56)}
    image = Qcow2(*(SIZE, clusters), cluster_bits=16, backing=b"base.raw", backing_format=b"raw")
    siblings = LocalFolder(folder)
    return open_image(MemoryDevice(image.build()), name="top.qcow2", siblings=siblings)


def _overlay(_folder: Path) -> BlockDevice:
    device = OverlayDevice(MemoryDevice(pattern(MiB)), size=SIZE)
    device.zero(0, MiB)
    for offset, data in PARTS.items():
        device.write(offset, data)
    return device


def _sparse_vmdk(_folder: Path) -> BlockDevice:
    return open_image(MemoryDevice(SparseVmdk(SIZE, _grains(reverse=True)).build()))


def _stream_vmdk(_folder: Path) -> BlockDevice:
    return open_image(MemoryDevice(StreamVmdk(SIZE, _grains(), flags=0x30005).build()))


def _vmdk_of_many_extents(_folder: Path) -> BlockDevice:
    disk, sizes = content(), (MiB + 512, MiB - 512, 10 * KiB, SIZE - 2 * MiB - 10 * KiB)
    text = descriptor(
        f'RW {sizes[0] // 512} FLAT "flat" 3',
        f"RW {sizes[1] // 512} ZERO",
        f'RW {sizes[2] // 512} VMFS "vmfs"',
        f'RW {sizes[3] // 512} SPARSE "sparse"',
    )
    last = disk[-sizes[3] :]
    grains = {at // GRAIN: last[at : at + GRAIN] for at in range(0, sizes[3], GRAIN)}
    files = {
        "flat": bytes(1536) + disk[: sizes[0]],
        "vmfs": bytes(sizes[2]),
        "sparse": SparseVmdk(
            sizes[3], {n: data for n, data in grains.items() if any(data)}
        ).build(),
    }
    return open_image(MemoryDevice(text.encode()), format="vmdk", siblings=Folder(files))


def _vmdk_delta(_folder: Path) -> BlockDevice:
    grains = _grains()
    base = grains | {100: pattern(GRAIN)} | dict.fromkeys(list(grains)[::3], pattern(GRAIN, 9))
    top = SparseVmdk(
        SIZE,
        {number: grains[number] for number in list(grains)[::3]},
        flags=7,
        entries={100: 1},
        parent=("00000001", "base"),
    )
    files = {"base": StreamVmdk(SIZE, base, cid="1").build()}
    return open_image(MemoryDevice(top.build()), name="top.vmdk", siblings=Folder(files))


def _ova(_folder: Path) -> BlockDevice:
    return open_image(MemoryDevice(ova(StreamVmdk(SIZE, _grains()).build())))


def _grains(*, reverse: bool = False) -> dict[int, bytes]:
    """Return the grains of `content()` that are not all zeros."""
    disk = content()
    grains = {at // GRAIN: disk[at : at + GRAIN] for at in range(0, SIZE, GRAIN)}
    numbers = sorted((number for number, data in grains.items() if any(data)), reverse=reverse)
    return {number: grains[number] for number in numbers}


def _window(_folder: Path) -> BlockDevice:
    base = MemoryDevice(SIZE + 1000)
    for offset, data in PARTS.items():
        base.write(offset + 700, data)
    return OffsetDevice(base, 700, SIZE)


@dataclass
class Case:
    """One way to get a device that holds `content()`."""

    make: Callable[[Path], BlockDevice]
    writable: bool = False


CASES = {
    "memory": Case(_memory, writable=True),
    "memory-read-only": Case(lambda _folder: MemoryDevice(content(), read_only=True)),
    "file": Case(_file, writable=True),
    "file-read-only": Case(_read_only_file),
    "overlay": Case(_overlay, writable=True),
    "counting": Case(lambda folder: CountingDevice(_memory(folder)), writable=True),
    "raw": Case(_raw),
    "raw-in-place": Case(_raw_in_place, writable=True),
    "vhd-fixed": Case(_fixed_vhd),
    "vhd-dynamic": Case(_dynamic_vhd),
    "vhdx": Case(_vhdx),
    "vhd-chain": Case(lambda _folder: _chain(vhd_chain, "vhd")),
    "vhdx-in-place": Case(_vhdx_in_place, writable=True),
    "vhdx-chain-in-place": Case(
        lambda _folder: _chain(vhdx_chain, "vhdx", writable=True), writable=True
    ),
    "vhdx-chain": Case(lambda _folder: _chain(vhdx_chain, "vhdx")),
    "qcow2": Case(_qcow2),
    "qcow2-subclusters": Case(_qcow2_subclusters),
    "qcow2-chain": Case(_qcow2_chain),
    "vmdk-sparse": Case(_sparse_vmdk),
    "vmdk-stream": Case(_stream_vmdk),
    "vmdk-extents": Case(_vmdk_of_many_extents),
    "vmdk-delta": Case(_vmdk_delta),
    "ova": Case(_ova),
    "window": Case(_window, writable=True),
}
_ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
_WRITABLE = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.writable],
    ids=[name for name, case in CASES.items() if case.writable],
)
_READ_ONLY = pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if not case.writable],
    ids=[name for name, case in CASES.items() if not case.writable],
)
WINDOWS = [(0, SIZE), (0, 1), (SIZE - 1, 1), (99, 2), (MiB - 7, 2 * MiB + 9), (4096, 0), (SIZE, 0)]


@pytest.fixture
def device(case: Case, tmp_path: Path) -> Iterator[BlockDevice]:
    with closing(case.make(tmp_path)) as made:
        yield made


@_ALL
def test_is_a_block_device_of_the_right_size(device: BlockDevice) -> None:
    assert isinstance(device, BlockDevice)
    assert device.size == SIZE


@_ALL
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_reads_exactly_the_window(device: BlockDevice, window: tuple[int, int]) -> None:
    offset, length = window
    assert read_bytes(device, offset, length) == content()[offset : offset + length]


@_ALL
def test_a_read_fills_dirty_buffers_and_leaves_their_neighbours(device: BlockDevice) -> None:
    buffer = bytearray(b"\xee" * (SIZE + 20))
    device.read_into(0, memoryview(buffer)[10:-10])
    assert buffer == b"\xee" * 10 + content() + b"\xee" * 10


@_ALL
@pytest.mark.parametrize("window", [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (1 << 62, 1)], ids=str)
def test_ranges_outside_the_disk_are_refused(device: BlockDevice, window: tuple[int, int]) -> None:
    offset, length = window
    with pytest.raises(OutOfRange):
        device.read_into(offset, memoryview(bytearray(length)))
    with pytest.raises(OutOfRange):
        list(device.extents(offset, length))


@_ALL
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_extents_tile_the_window(device: BlockDevice, window: tuple[int, int]) -> None:
    offset, length = window
    position = offset
    for extent in device.extents(offset, length):
        assert extent.offset == position
        assert extent.length > 0
        position = extent.end
    assert position == offset + length


@_ALL
def test_what_is_not_data_reads_as_zeros(device: BlockDevice) -> None:
    for extent in device.extents(0, SIZE):
        if not extent.is_data:
            assert not any(read_bytes(device, extent.offset, extent.length))


@_ALL
def test_many_threads_may_read(device: BlockDevice) -> None:
    step = 37_001

    def check(offset: int) -> bool:
        length = min(step, SIZE - offset)
        return read_bytes(device, offset, length) == content()[offset : offset + length]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(0, SIZE, step)))


@_ALL
def test_a_closed_device_does_nothing(device: BlockDevice) -> None:
    device.close()
    device.close()
    calls: list[Callable[[], object]] = [
        lambda: device.read_into(0, memoryview(bytearray(1))),
        lambda: list(device.extents(0, 1)),
        lambda: device.write(0, b"x"),
        lambda: device.zero(0, 1),
        device.flush,
    ]
    for call in calls:
        with pytest.raises(DeviceClosed):
            call()


@_READ_ONLY
def test_a_read_only_device_cannot_be_changed(device: BlockDevice) -> None:
    for call in (lambda: device.write(0, b"x"), lambda: device.zero(0, 1), device.flush):
        with pytest.raises(ReadOnlyDevice):
            call()
    assert read_bytes(device, 0, SIZE) == content()


@_WRITABLE
def test_writes_and_zeros_are_read_back(device: BlockDevice) -> None:
    expected = bytearray(content())
    for offset, data in ((0, b"first"), (MiB + 3, pattern(9000, 3)), (SIZE - 4, b"last")):
        device.write(offset, memoryview(data))
        expected[offset : offset + len(data)] = data
    for offset, length in ((50, 10_000), (3 * MiB, MiB // 2), (7, 0)):
        device.zero(offset, length)
        expected[offset : offset + length] = bytes(length)
    device.flush()
    assert read_bytes(device, 0, SIZE) == bytes(expected)
    assert device.size == SIZE


@_WRITABLE
@pytest.mark.parametrize("window", [(-1, 1), (SIZE, 1), (SIZE - 1, 2)], ids=str)
def test_writes_outside_the_disk_are_refused(device: BlockDevice, window: tuple[int, int]) -> None:
    offset, length = window
    with pytest.raises(OutOfRange):
        device.write(offset, bytes(length))
    with pytest.raises(OutOfRange):
        device.zero(offset, length)
    assert read_bytes(device, 0, SIZE) == content()
