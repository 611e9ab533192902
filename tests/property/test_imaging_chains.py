"""Whatever was written into whichever image of a chain, the chain reads as one disk through any of its files."""

from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.digest import digest_device
from imaging.formats import DiskImage, open_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, Writes, model, vhd_chain, vhdx_chain
from tests.support.disks import KiB, MiB, pattern, root_of

SMALL = 4 * KiB


def open_chain(files: dict[str, bytes], name: str) -> DiskImage:
    return open_image(MemoryDevice(files[name]), name=name, siblings=MemoryFolder(files))


def check(image: DiskImage, expected: bytes, one: int, two: int) -> None:
    assert image.size == len(expected)
    first, second = one % (image.size + 1), two % (image.size + 1)
    offset, length = min(first, second), abs(first - second)
    assert read_bytes(image, offset, length) == expected[offset : offset + length]
    position = offset
    for extent in image.extents(offset, length):
        assert extent.offset == position
        if not extent.is_data:
            assert not any(expected[extent.offset : extent.end])
        position = extent.end
    assert position == offset + length
    assert digest_device(image, threads=1).root == root_of(expected)


@st.composite
def layered(draw: st.DrawFn, most: int, sector: int) -> list[tuple[int, Writes]]:
    """One to four images of up to `most` bytes, each with some written sectors."""
    layers: list[tuple[int, Writes]] = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(most // 2 // sector, most // sector)) * sector
        writes: Writes = []
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, size // sector - 1))
            step = draw(st.sampled_from([1, 1, 2, 3]))
            count = draw(st.integers(1, 40 if step > 1 else size // sector))
            for place in range(start, min(start + count * step, size // sector), step):
                seed = number * 1000 + place % 7
                writes.append((place * sector, pattern(sector, seed)))
        layers.append((size, writes))
    return layers


windows = st.integers(0, 1 << 30)


@given(layered(10 * SMALL, 512), windows, windows)
def test_vhd(layers: list[tuple[int, Writes]], one: int, two: int) -> None:
    files = vhd_chain(layers, block_size=SMALL)
    for count, name in enumerate(files, 1):
        check(open_chain(files, name), model(layers[:count]), one, two)


@settings(max_examples=20)
@given(
    st.sampled_from([512, 4096]).flatmap(
        lambda size: st.tuples(st.just(size), layered(3 * MiB, size))
    ),
    windows,
    windows,
)
def test_vhdx(drawn: tuple[int, list[tuple[int, Writes]]], one: int, two: int) -> None:
    sector, layers = drawn
    files = vhdx_chain(layers, sector=sector)
    for count, name in enumerate(files, 1):
        check(open_chain(files, name), model(layers[:count]), one, two)
