"""Chains of differencing images: what is read, through which file, and which lies and references are refused."""

import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    BlockOverlap,
    ImagingError,
    InvalidImage,
    Truncated,
)
from imaging.extent import Extent, Kind
from imaging.filedev import FileDevice
from imaging.formats import DiskImage, open_image
from imaging.memory import MemoryDevice
from tests.support.chains import (
    MemoryFolder,
    VhdChild,
    VhdxChild,
    model,
    vhd_chain,
    vhdx_chain,
)
from tests.support.disks import (
    METADATA_OFFSET,
    DynamicVhd,
    KiB,
    MiB,
    Vhdx,
    fixed_vhd,
    pattern,
    vhd_sum,
)

BASE = {block: pattern(MiB, block) for block in range(4)}
VHD_BLOCK = 512 * KiB
HERE = {"relative_path": ".\\base.vhdx"}


def opened(files: dict[str, bytes], name: str) -> tuple[DiskImage, MemoryFolder]:
    folder = MemoryFolder(files)
    return open_image(MemoryDevice(files[name]), name=name, siblings=folder), folder


def refusal(files: dict[str, bytes], name: str) -> ImagingError:
    folder = MemoryFolder(files)
    with pytest.raises(ImagingError) as caught:
        open_image(MemoryDevice(files[name]), name=name, siblings=folder)
    assert folder.left_open == 0
    return caught.value


def base_vhdx(**fields: Any) -> bytes:
    return Vhdx(4 * MiB, BASE, **fields).build()


def vhdx_pair(child: VhdxChild) -> dict[str, bytes]:
    return {"base.vhdx": base_vhdx(), "top.avhdx": child.build()}


def vhd_pair(child: VhdChild) -> dict[str, bytes]:
    base = DynamicVhd(4 * VHD_BLOCK, {b: pattern(VHD_BLOCK, b) for b in range(4)})
    return {"base.vhd": base.build(), "top.avhd": child.build()}


def vhdx_child(**fields: Any) -> VhdxChild:
    return VhdxChild(4 * MiB, **{"paths": HERE, "blocks": {1: pattern(MiB, 9)}, **fields})


def vhd_child(**fields: Any) -> VhdChild:
    fields.setdefault("locators", [(b"W2ru", ".\\base.vhd")])
    return VhdChild(4 * VHD_BLOCK, {1: pattern(VHD_BLOCK, 9)}, **fields)


# --- what is read --------------------------------------------------------------------------------


def test_vhdx_states_show_or_hide_the_parent() -> None:
    child = VhdxChild(5 * MiB, {0: pattern(MiB, 9)}, paths=HERE, states={1: 0, 2: 2, 3: 3, 4: 1})
    disk, _ = opened(vhdx_pair(child), "top.avhdx")
    assert read_bytes(disk, 0, 5 * MiB) == pattern(MiB, 9) + BASE[1] + bytes(3 * MiB)
    assert list(disk.extents(0, 5 * MiB)) == [
        Extent(0, 2 * MiB, Kind.DATA),
        Extent(2 * MiB, MiB, Kind.ZERO),
        Extent(3 * MiB, 2 * MiB, Kind.HOLE),
    ]


@pytest.mark.parametrize("state", [1, 2, 3], ids=["undefined", "zero", "unmapped"])
def test_a_block_that_reads_as_zeros_hides_the_parent(state: int) -> None:
    disk, _ = opened(vhdx_pair(vhdx_child(states={2: (4 << 20) | state})), "top.avhdx")
    assert not any(read_bytes(disk, 2 * MiB, MiB))
    assert not any(extent.is_data for extent in disk.extents(2 * MiB, MiB))


@pytest.mark.parametrize("step", [2000, 2], ids=["few-runs", "many-runs"])
def test_a_large_block_is_put_together_in_steps(step: int) -> None:
    base, top = pattern(4 * MiB, 1), pattern(4 * MiB, 2)
    files = {
        "base.vhdx": Vhdx(4 * MiB, {0: base}, block_size=4 * MiB).build(),
        "top.avhdx": vhdx_child(
            blocks={0: top}, block_size=4 * MiB, sectors={0: range(5, 8192, step)}
        ).build(),
    }
    disk, _ = opened(files, "top.avhdx")
    expected = bytearray(base)
    for sector in range(5, 8192, step):
        part = slice(sector * 512, sector * 512 + 512)
        expected[part] = top[part]
    assert read_bytes(disk, 100, 4 * MiB - 200) == expected[100:-100]


def test_a_chain_describes_itself_by_its_top() -> None:
    disk, _ = opened(vhdx_pair(vhdx_child()), "top.avhdx")
    info = disk.info
    assert (info.format, info.subformat, info.parent) == ("vhdx", "differencing", "base.vhdx")
    assert (info.virtual_size, info.block_size, info.warnings) == (4 * MiB, MiB, ())
    disk, _ = opened(vhd_pair(vhd_child()), "top.avhd")
    assert (disk.info.subformat, disk.info.parent) == ("differencing", "base.vhd")


def test_sectors_of_a_vhdx_block_come_from_where_the_bitmap_says() -> None:
    here = [0, 1, 7, 8, 100, 2047]
    disk, _ = opened(vhdx_pair(vhdx_child(sectors={1: here})), "top.avhdx")
    expected = bytearray(BASE[1])
    for sector in here:
        part = slice(sector * 512, sector * 512 + 512)
        expected[part] = pattern(MiB, 9)[part]
    assert read_bytes(disk, MiB, MiB) == expected
    assert read_bytes(disk, MiB + 511, 514) == expected[511:1025]
    assert read_bytes(disk, 2 * MiB - 1, 2) == expected[-1:] + BASE[2][:1]


def test_a_vhdx_bitmap_speaks_for_the_blocks_of_its_chunk(tmp_path: Path) -> None:
    child = VhdxChild(0, block_size=256 * MiB, paths=HERE)
    child.size = (child.ratio + 2) * child.block_size
    child.blocks, child.sectors = {child.ratio + 1: pattern(4096, 9)}, {child.ratio + 1: [1]}
    folder = MemoryFolder({"base.vhdx": base_vhdx()})
    with closing(FileDevice(child.write(tmp_path / "top"))) as file:
        disk = open_image(file, name="top.vhdx", siblings=folder)
        found = read_bytes(disk, child.size - child.block_size, 1536)
    assert found == bytes(512) + pattern(4096, 9)[512:1024] + bytes(512)


def test_stale_bytes_under_a_vhd_bitmap_are_never_shown() -> None:
    disk, _ = opened(vhd_pair(vhd_child(sectors={1: []})), "top.avhd")
    assert read_bytes(disk, VHD_BLOCK, VHD_BLOCK) == pattern(VHD_BLOCK, 1)


def test_a_parent_may_be_fixed() -> None:
    files = {"base.vhd": fixed_vhd(pattern(4 * VHD_BLOCK)), "top.avhd": vhd_child().build()}
    disk, _ = opened(files, "top.avhd")
    assert read_bytes(disk, 0, VHD_BLOCK) == pattern(VHD_BLOCK)
    assert read_bytes(disk, VHD_BLOCK, VHD_BLOCK) == pattern(VHD_BLOCK, 9)


@pytest.mark.parametrize("make", [vhd_chain, vhdx_chain], ids=["vhd", "vhdx"])
@pytest.mark.parametrize("sizes", [(2, 3, 4), (4, 3, 2), (4, 2, 4)], ids=str)
def test_behind_the_end_of_a_parent_are_zeros(make: Any, sizes: tuple[int, ...]) -> None:
    layers = [
        (size * MiB, [(0, pattern(size * MiB if n == 0 else 512, n))])
        for n, size in enumerate(sizes)
    ]
    files = make(layers)
    for count, name in enumerate(files, 1):
        disk, folder = opened(files, name)
        with closing(disk):
            assert read_bytes(disk, 0, disk.size) == model(layers[:count])
            assert len(folder.opened) == count - 1
        assert folder.left_open == 0


def test_a_chain_of_32_is_read_and_one_of_33_refused() -> None:
    layers = [(64 * KiB, [(n * 512, pattern(512, n))]) for n in range(33)]
    files = vhd_chain(layers, block_size=4 * KiB)
    names = list(files)
    disk, folder = opened(files, names[31])
    assert read_bytes(disk, 0, disk.size) == model(layers[:32])
    disk.close()
    assert folder.left_open == 0
    assert "more than 32 images" in str(refusal(files, names[32]))


def test_many_small_runs_cost_one_read_of_each_file() -> None:
    class Counting(MemoryDevice):
        reads = 0

        def read_into(self, offset: int, buffer: memoryview) -> None:
            self.reads += 1
            super().read_into(offset, buffer)

    base = Counting(base_vhdx())
    folder = MemoryFolder({})
    folder.open = lambda name: base  # type: ignore[method-assign]
    file = Counting(vhdx_child(sectors={1: range(0, 2048, 2)}).build())
    disk = open_image(file, name="top.vhdx", siblings=folder)
    base.reads = file.reads = 0
    read_bytes(disk, MiB, 512 * KiB)
    assert (base.reads, file.reads) == (1, 2)  # the bitmap is the second


def test_doubts_about_a_parent_are_told_by_its_name() -> None:
    files = vhdx_pair(vhdx_child())
    files["base.vhdx"] = base_vhdx(parts={192 * KiB + 20: b"\xff"})
    disk, _ = opened(files, "top.avhdx")
    assert disk.info.warnings[0].startswith("parent 'base.vhdx': the VHDX region table")


# --- lies ----------------------------------------------------------------------------------------


def without_locator() -> VhdxChild:
    metadata = Vhdx(4 * MiB, flags=2).layout()[1][METADATA_OFFSET]
    return vhdx_child(parts={METADATA_OFFSET: metadata})


FULL = (4 << 20) | 6
VHDX_LIES = {
    "no-locator": (without_locator(), InvalidImage, "lack the item parent locator"),
    "partial-without-bitmap": (
        vhdx_child(states={2: (4 << 20) | 7}),
        InvalidImage,
        "without a bitmap",
    ),
    "state-4": (vhdx_child(states={2: 4}), InvalidImage, "block 2"),
    "bitmap-state": (vhdx_child(bitmap_entries={0: (5 << 20) | 7}), InvalidImage, "state 7"),
    "bitmap-behind-end": (
        vhdx_child(sectors={1: [1]}, bitmap_entries={0: (9 << 20) | 6}),
        Truncated,
        "the sector bitmap of chunk 0 ends",
    ),
    "bitmap-far-away": (vhdx_child(bitmap_entries={0: (1 << 63) | 6}), Truncated, "chunk 0 ends"),
    "bitmap-in-bat": (vhdx_child(bitmap_entries={0: (3 << 20) | 6}), BlockOverlap, "the BAT"),
    "bitmap-in-headers": (vhdx_child(bitmap_entries={0: 6}), BlockOverlap, "the headers"),
    "bitmap-in-a-block": (
        vhdx_child(bitmap_entries={0: FULL}),
        BlockOverlap,
        "overlaps a sector bitmap",
    ),
    "block-in-a-bitmap": (
        vhdx_child(sectors={1: [1]}, states={2: (5 << 20) | 6}),
        BlockOverlap,
        "overlaps a sector bitmap",
    ),
}


@pytest.mark.parametrize(("child", "error", "cause"), VHDX_LIES.values(), ids=VHDX_LIES.keys())
def test_a_lie_in_a_vhdx_child_is_refused_at_open(
    child: VhdxChild, error: type[ImagingError], cause: str
) -> None:
    err = refusal(vhdx_pair(child), "top.avhdx")
    assert type(err) is error
    assert cause in str(err)
    assert "offset" in err.fields or "block" in err.fields


def test_a_vhd_locator_may_not_lie_behind_the_end_or_under_a_block() -> None:
    content = bytearray(vhd_child().build())
    place = 512 + 576 + 16
    for offset, error in ((1 << 40, Truncated), (512, BlockOverlap)):
        content[place : place + 8] = struct.pack(">Q", offset)
        content[512:1536] = vhd_sum(bytes(content[512:1536]), 36)
        assert type(refusal(vhd_pair_of(bytes(content)), "top.avhd")) is error


def vhd_pair_of(child: bytes) -> dict[str, bytes]:
    return {**vhd_pair(vhd_child()), "top.avhd": child}
