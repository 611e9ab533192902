"""Resizes: the disk is longer, its new part reads as zeros, and a power loss leaves the old disk or the new one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import DiskTooLarge, InvalidImage, SizeRefused, UnsupportedImage
from imaging.formats import check_image, check_path, edit_image, open_image, resize_path
from imaging.formats.registry import REGISTRY
from imaging.formats.vhd.layout import move_table
from imaging.formats.vhdx.headers import read_header
from imaging.memory import MemoryDevice
from tests.support.chains import VhdChild, VhdxChild
from tests.support.disks import DynamicVhd, KiB, MiB, Vhdx, fixed_vhd, pattern, vhd_footer
from tests.support.powerloss import RecordedDevice
from tests.support.vhdx_logs import DATA, Entry
from tests.support.vhdx_logs import image as image_with_log

pytestmark = pytest.mark.exhaustive

TiB = 1 << 40
BLOCK = 512 * KiB
SIZE = 3 * BLOCK + 4096
LAST = b"\xee" * BLOCK
"""A last block whose part behind the disk's end is not zeros."""


def vhd_dynamic(entries: int | None = None) -> bytes:
    return DynamicVhd(SIZE, {0: pattern(BLOCK), 3: LAST}, max_entries=entries, bat={}).build()


def vhd_spare_entries() -> bytes:
    """A BAT with room, whose spare entries say nonsense."""
    content = bytearray(vhd_dynamic(64))
    content[1536 + 16 : 1536 + 256] = b"\0\0\0\7" * 60
    return bytes(content)


def vhd_gap() -> bytes:
    return pattern(SIZE) + b"\xee" * 4096 + vhd_footer(SIZE)


def vhdx(*, fixed: bool = False, block_size: int = MiB, size: int = 3 * MiB + 4096) -> bytes:
    count = -(-size // block_size)
    blocks = {0: pattern(block_size), count - 1: b"\xee" * block_size}
    if fixed:
        blocks = dict.fromkeys(range(count), b"\xee" * block_size)
    image = Vhdx(size, blocks, block_size=block_size, flags=int(fixed))
    end = image.entry_offset(count)
    image.parts[end] = b"\7" * 64  # behind the entries that count
    return image.build()


def logged() -> bytes:
    return image_with_log({0: Entry(5, {DATA + 8192: pattern(4096, 7)}).build()})


CASES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "raw": ("raw", lambda: pattern(SIZE), SIZE + 1),
    "vhd-fixed": ("vhd", lambda: fixed_vhd(pattern(SIZE)), SIZE + 512),
    "vhd-fixed-more": ("vhd", lambda: fixed_vhd(pattern(SIZE)), 4 * MiB),
    "vhd-fixed-511": ("vhd", lambda: fixed_vhd(pattern(SIZE))[:-1], SIZE + 512),
    "vhd-fixed-gap": ("vhd", vhd_gap, SIZE + 1024),
    "vhd-fixed-beyond-its-gap": ("vhd", vhd_gap, SIZE + 8192),
    "vhd-inside-the-last-block": ("vhd", vhd_dynamic, SIZE + 512),
    "vhd-more-blocks": ("vhd", vhd_dynamic, 20 * BLOCK),
    "vhd-spare-entries": ("vhd", vhd_spare_entries, 20 * BLOCK + 512),
    "vhd-511": ("vhd", lambda: vhd_dynamic()[:-1], SIZE + 512),
    "vhdx-inside-the-last-block": ("vhdx", vhdx, 3 * MiB + 8192),
    "vhdx-more-blocks": ("vhdx", vhdx, 8 * MiB + 512),
    "vhdx-fixed": ("vhdx", lambda: vhdx(fixed=True), 9 * MiB + 512),
    "vhdx-fixed-odd": ("vhdx", lambda: vhdx(fixed=True) + bytes(4096), 9 * MiB + 512),
    "vhdx-cut": ("vhdx", lambda: vhdx(block_size=4 * MiB, size=9 * MiB)[: -3 * MiB], 10 * MiB),
    "vhdx-log": ("vhdx", logged, 3 * MiB),
}


def disk_of(content: bytes, form: str) -> bytes:
    image = open_image(MemoryDevice(content, read_only=True), format=form)
    return read_bytes(image, 0, image.size)


def resize(file: RecordedDevice, form: str, size: int) -> None:
    REGISTRY[form].resizer()(file, size)


@pytest.mark.parametrize(("form", "build", "size"), CASES.values(), ids=CASES.keys())
def test_a_resized_disk_is_the_old_one_and_zeros(
    form: str, build: Callable[[], bytes], size: int
) -> None:
    content = build()
    old = disk_of(content, form)
    new = old.ljust(size, b"\0")
    file = RecordedDevice(content)
    resize(file, form, size)
    assert disk_of(read_bytes(file, 0, file.size), form) == new
    assert form != "vhdx" or file.size % MiB == 0  # blocks lie at whole MiB
    if "gap" not in build.__name__ and form != "raw":
        codes = {finding.code for finding in check_image(file, format=form).findings}
        assert codes <= {"check.leaked-space", "check.unreachable"}
    seen = set()
    flushes = [at for at, one in enumerate(file.recording.operations) if one.offset < 0]
    for state in file.recording.states(random_choices=3):
        found = disk_of(state.content, form)
        # What was flushed last is there when it returns; holes that are made then change nothing.
        assert found in ((new,) if state.durable > flushes[-1] else (old, new))
        seen.add(len(found))
        if found == old:
            again = RecordedDevice(state.content)
            resize(again, form, size)
            assert disk_of(read_bytes(again, 0, again.size), form) == new
    assert seen == {len(old), size}


def test_a_table_that_is_too_short_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BAT region of 1 MiB has entries for 128 Ki blocks."""
    size = 200 << 30
    file = RecordedDevice(vhdx())
    resize(file, "vhdx", size)
    image = open_image(file, format="vhdx")
    assert image.size == size
    assert read_bytes(image, 0, MiB) == pattern(MiB)
    assert not any(read_bytes(image, size - MiB, MiB))
    editor = edit_image(file, format="vhdx")
    editor.write(size - 5, b"last!")
    editor.close()
    for state in file.recording.states(random_choices=0):
        found = open_image(MemoryDevice(state.content, read_only=True), format="vhdx")
        assert found.size in (3 * MiB + 4096, size)
        assert read_bytes(found, 0, MiB) == pattern(MiB)


@pytest.mark.parametrize(("form", "build"), [("vhd", vhd_dynamic), ("vhdx", vhdx)])
def test_the_place_of_the_old_table_is_a_hole_of_the_file(
    form: str, build: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"image.{form}"
    path.write_bytes(build())
    resize_path(path, 200 << 30, format=form)
    assert check_path(path).clean


def test_a_child_notices_that_its_parent_is_another_one_now() -> None:
    file = RecordedDevice(vhdx())
    before = read_header(file)[0].data_write_guid
    resize(file, "vhdx", 5 * MiB)
    assert read_header(file)[0].data_write_guid != before


@pytest.mark.parametrize("form", ["raw", "vhd", "vhdx"])
def test_no_disk_gets_smaller(form: str) -> None:
    content = {"raw": pattern(SIZE), "vhd": vhd_dynamic(), "vhdx": vhdx()}[form]
    size = len(disk_of(content, form))
    file = RecordedDevice(content)
    for wrong in (size, size - 512, 0):
        with pytest.raises(SizeRefused, match="not more"):
            resize(file, form, wrong)
    assert file.recording.operations == []


@pytest.mark.parametrize(
    ("form", "content", "size", "error"),
    [
        ("vhd", vhd_dynamic(), SIZE + 100, SizeRefused),
        ("vhdx", vhdx(), 4 * MiB + 100, SizeRefused),
        ("vhd", vhd_dynamic(), 2041 << 30, DiskTooLarge),
        ("vhd", fixed_vhd(pattern(SIZE)), 65 * TiB, DiskTooLarge),
        ("vhdx", vhdx(), 65 * TiB, DiskTooLarge),
        ("vhd", fixed_vhd(pattern(SIZE), saved_state=1), 2 * SIZE, UnsupportedImage),
        (
            "vhd",
            VhdChild(SIZE, {0: pattern(BLOCK)}, name="base.vhd").build(),
            2 * SIZE,
            UnsupportedImage,
        ),
        (
            "vhdx",
            VhdxChild(3 * MiB, paths={"relative_path": "b.vhdx"}).build(),
            4 * MiB,
            UnsupportedImage,
        ),
        ("vhd", vhd_dynamic()[:-100], 2 * SIZE, InvalidImage),
        ("vhd", pattern(SIZE) + bytes(100) + vhd_footer(SIZE), SIZE + 512, UnsupportedImage),
        ("vhd", pattern(SIZE) + bytes(612) + vhd_footer(SIZE), SIZE + 512, UnsupportedImage),
    ],
)
def test_what_cannot_be_done_safely_is_refused_untouched(
    form: str, content: bytes, size: int, error: type[Exception]
) -> None:
    file = RecordedDevice(content)
    with pytest.raises(error):
        resize(file, form, size)
    assert file.recording.operations == []


def test_a_last_block_without_room_is_refused() -> None:
    whole = DynamicVhd(SIZE, {3: LAST[:4096]})
    content = whole.build()
    cut = content[: len(content) - 512 - BLOCK + 4096] + content[-512:]
    assert disk_of(cut, "vhd")[-4096:] == LAST[:4096]
    file = RecordedDevice(cut)
    with pytest.raises(UnsupportedImage, match="no room"):
        resize(file, "vhd", 2 * SIZE)
    assert file.recording.operations == []


def test_a_last_block_that_is_cut_by_the_table_is_refused() -> None:
    content = bytearray(DynamicVhd(SIZE, {3: LAST[:4096]}).build())
    place = len(content) - 512 - BLOCK + 4096
    header = move_table(bytes(content[512:1536]), table_offset=place, max_entries=4)
    content[512:1536] = header
    content[place : place + 512] = content[1536:2048]
    assert disk_of(bytes(content), "vhd")[-4096:] == LAST[:4096]
    file = RecordedDevice(bytes(content))
    with pytest.raises(UnsupportedImage, match="no room"):
        resize(file, "vhd", 2 * SIZE)
    assert file.recording.operations == []
