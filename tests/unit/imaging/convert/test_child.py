"""A differencing VHDX that is made beside its parent: what it reads as, how it is laid out, and what is refused."""

import random
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from imaging.convert import child as child_module
from imaging.convert.child import Content, Created, create_child
from imaging.convert.difference import changed_runs
from imaging.device import BlockDevice, read_bytes
from imaging.digest import DigestBuilder
from imaging.errors import (
    DiskTooLarge,
    FileExists,
    ImagingError,
    InvalidImage,
    ParentMismatch,
    ReferenceRefused,
    Stopped,
)
from imaging.extent import data_bytes
from imaging.filedev import FileDevice
from imaging.formats import check_path, edit_path, open_image, open_path
from imaging.formats.vhdx.device import LoadedVhdx, load_vhdx
from imaging.formats.vhdx.entries import (
    place_of,
    state_of,
)
from imaging.formats.vhdx.layout import ITEM_DISK_ID, ITEM_PHYSICAL_SECTOR
from imaging.memory import MemoryDevice
from imaging.siblings import LocalFolder
from tests.support.chains import vhdx_chain
from tests.support.disks import (
    DISK_ID,
    PHYSICAL_SECTOR,
    GiB,
    KiB,
    MiB,
    Vhdx,
    pattern,
    root_of,
    write_sparse,
)
from tests.support.sinks import RecordedFile, sparse_device

pytestmark = pytest.mark.exhaustive

SIZE = 9 * MiB + 8 * KiB
ID = uuid.UUID(int=0x77)


def base(folder: Path, *, sector: int = 512, block_size: int = MiB) -> tuple[Path, bytearray]:
    """A parent with data, holes, and blocks of zeros."""
    content = bytearray(SIZE)
    for start, stop in ((0, 3 * MiB), (4 * MiB, 5 * MiB), (8 * MiB, SIZE)):
        content[start:stop] = pattern(stop - start, start + 1)
    blocks = {
        number: bytes(content[number * block_size : (number + 1) * block_size])
        for number in range(-(-SIZE // block_size))
    }
    image = Vhdx(SIZE, blocks, sector=sector, block_size=block_size)
    return image.write(folder / "base.vhdx"), content


def make(folder: Path, content: bytes | BlockDevice | None, name: str = "child.avhdx") -> Created:
    device = MemoryDevice(content) if isinstance(content, bytes | bytearray) else content
    made = Content(device) if device else None
    return create_child(folder / "base.vhdx", folder / name, unique_id=ID, content=made)


def read(path: Path) -> bytes:
    with open_path(path, format="vhdx") as image:
        return read_bytes(image, 0, image.size)


def load(path: Path) -> LoadedVhdx:
    file = FileDevice(path)
    try:
        return load_vhdx(file)
    finally:
        file.close()


def states(path: Path) -> list[int]:
    loaded = load(path)
    return [state_of(loaded.table.entry(block)) for block in range(loaded.disk.blocks)]


@pytest.mark.parametrize("sector", [512, 4096])
def test_an_empty_child_is_its_parent(sector: int, tmp_path: Path) -> None:
    parent, content = base(tmp_path, sector=sector, block_size=2 * MiB)
    before = parent.read_bytes()
    info = make(tmp_path, None).info
    assert (info.subformat, info.parent, info.virtual_size) == ("differencing", "base.vhdx", SIZE)
    assert (info.block_size, info.sector_size) == (2 * MiB, sector)
    assert info.file_size == (tmp_path / "child.avhdx").stat().st_size == 4 * MiB
    assert read(tmp_path / "child.avhdx") == content
    assert check_path(tmp_path / "child.avhdx").clean
    assert parent.read_bytes() == before


def test_a_child_of_a_child_lies_over_both(tmp_path: Path) -> None:
    _, content = base(tmp_path)
    make(tmp_path, None)
    with edit_path(tmp_path / "child.avhdx", format="vhdx") as image:
        image.write(MiB + 7, b"changed")
        image.flush()
    content[MiB + 7 : MiB + 14] = b"changed"
    info = create_child(tmp_path / "child.avhdx", tmp_path / "top.avhdx", unique_id=ID).info
    assert info.parent == "child.avhdx"
    assert read(tmp_path / "top.avhdx") == content


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("block_size", [MiB, 4 * MiB])
@pytest.mark.parametrize("seed", range(4))
def test_a_child_reads_as_any_disk(seed: int, block_size: int, sector: int, tmp_path: Path) -> None:
    _, content = base(tmp_path, sector=sector, block_size=block_size)
    chance = random.Random(seed)
    for number in range(12):
        length = chance.choice([1, 300, 4096, 70_000, MiB, 3 * MiB])
        at = chance.randrange(SIZE - length)
        new = pattern(length, seed * 100 + number) if chance.random() < 0.6 else bytes(length)
        content[at : at + length] = new
    device = sparse_device(SIZE, {})
    for at in range(0, SIZE, 4096):  # holes where zeros are
        if any(piece := bytes(content[at : at + 4096])):
            device.write(at, piece)
    make(tmp_path, device)
    assert read(tmp_path / "child.avhdx") == content
    assert check_path(tmp_path / "child.avhdx").clean


def test_each_block_has_the_state_that_says_what_changed(tmp_path: Path) -> None:
    _, content = base(tmp_path)
    content[0:MiB] = pattern(MiB, 70)
    content[MiB : 2 * MiB] = bytes(MiB)
    content[2 * MiB : 2 * MiB + 700] = b"x" * 700
    content[4 * MiB : 4 * MiB + 4096] = bytes(4096)
    content[9 * MiB :] = pattern(8 * KiB, 71)
    made = make(tmp_path, bytes(content))
    path = tmp_path / "child.avhdx"
    assert states(path) == [6, 2, 7, 0, 7, 0, 0, 0, 0, 6]
    assert read(path) == content
    loaded = load(path)
    bitmap = place_of(loaded.table.bitmap_entry(0))
    file = path.read_bytes()
    bits = int.from_bytes(file[bitmap : bitmap + MiB], "little")
    assert bits == 0b11 << 2 * 2048 | 0xFF << 4 * 2048
    places = [place_of(loaded.table.entry(block)) for block in (0, 2, 4, 9)]
    assert places == [4 * MiB, 5 * MiB, 6 * MiB, 7 * MiB]
    assert bitmap == 8 * MiB
    assert len(file) == 9 * MiB
    assert made.bytes_written < 3 * MiB + 256 * KiB


def test_zeros_inside_what_changed_are_holes_of_the_file(tmp_path: Path) -> None:
    _, content = base(tmp_path)
    content[0:MiB] = bytes(MiB)
    content[MiB - 1] = 1
    made = make(tmp_path, bytes(content))
    assert states(tmp_path / "child.avhdx")[0] == 6
    assert made.bytes_written < MiB
    assert read(tmp_path / "child.avhdx") == content


def test_a_block_of_zeros_whose_parent_is_partly_zeros_takes_no_space(tmp_path: Path) -> None:
    content = bytearray(2 * MiB)
    content[MiB + 5] = 9
    Vhdx(2 * MiB, {1: bytes(content[MiB:])}).write(tmp_path / "base.vhdx")
    make(tmp_path, bytes(2 * MiB))
    assert states(tmp_path / "child.avhdx") == [0, 2]


def test_bitmaps_of_several_chunks(tmp_path: Path) -> None:
    """A chunk is 4 GiB of a disk of 512-byte sectors."""
    size = 13 * GiB
    Vhdx(size, {0: b"zero", 130: b"parent"}, block_size=32 * MiB).write(tmp_path / "base.vhdx")
    parts = {0: b"zero", 32 * MiB * 130 + 8192: b"second", 9 * GiB: b"third", size - 4: b"last"}
    source = FileDevice(write_sparse(tmp_path / "disk.raw", size, parts))
    make(tmp_path, source)
    path = tmp_path / "child.avhdx"
    loaded = load(path)
    kept = [state_of(loaded.table.bitmap_entry(chunk)) for chunk in range(4)]
    assert kept == [0, 6, 6, 6]
    with open_path(path, format="vhdx") as image:
        for at, data in parts.items():
            assert read_bytes(image, at, len(data)) == data
        assert read_bytes(image, 32 * MiB * 130, 6) == bytes(6)
        assert data_bytes(image.extents(0, size)) < MiB
    source.close()


@pytest.mark.parametrize("length", [2 * MiB + 100, SIZE + 3 * MiB + 1], ids=["shorter", "longer"])
def test_a_child_may_be_of_another_size(length: int, tmp_path: Path) -> None:
    _, content = base(tmp_path)
    content = content[:length].ljust(length, b"\1")
    digest, told = DigestBuilder(length), list[int]()
    source = Content(MemoryDevice(bytes(content)), digest=digest, progress=told.append)
    parent = tmp_path / "base.vhdx"
    info = create_child(parent, tmp_path / "child.avhdx", unique_id=ID, content=source).info
    assert info.virtual_size == -(-length // 512) * 512
    assert read(tmp_path / "child.avhdx") == content.ljust(info.virtual_size, b"\0")
    assert digest.root() == root_of(bytes(content))
    assert sum(told) == length


def test_the_digest_and_progress_count_what_is_not_read(tmp_path: Path) -> None:
    Vhdx(9 * MiB).write(tmp_path / "base.vhdx")
    parts = {3 * MiB + 5: b"a", 8 * MiB: pattern(MiB)}
    source = sparse_device(9 * MiB, parts)
    digest, told = DigestBuilder(9 * MiB), list[int]()
    content = Content(source, digest=digest, progress=told.append)
    child = tmp_path / "child.avhdx"
    create_child(tmp_path / "base.vhdx", child, unique_id=ID, content=content)
    assert digest.root() == root_of(read(child))
    assert sum(told) == 9 * MiB


def test_the_guest_sees_the_same_disk(tmp_path: Path) -> None:
    disk_id = bytes(range(100, 116))
    Vhdx(MiB, {0: pattern(MiB)}).write(tmp_path / "plain.vhdx")
    raw = (tmp_path / "plain.vhdx").read_bytes()
    at = raw.index(DISK_ID, 2 * MiB)
    (where,) = struct.unpack_from("<I", raw, at + 16)
    physical = struct.unpack_from("<I", raw, raw.index(PHYSICAL_SECTOR, 2 * MiB) + 16)[0]
    content = bytearray(raw)
    content[2 * MiB + where : 2 * MiB + where + 16] = disk_id
    content[2 * MiB + physical : 2 * MiB + physical + 4] = struct.pack("<I", 512)
    (tmp_path / "base.vhdx").write_bytes(content)
    make(tmp_path, None)
    items = load(tmp_path / "child.avhdx").items
    assert items[ITEM_DISK_ID] == disk_id
    assert items[ITEM_PHYSICAL_SECTOR] == struct.pack("<I", 512)


def test_a_child_notices_that_its_parent_is_written(tmp_path: Path) -> None:
    base(tmp_path)
    make(tmp_path, None)
    with edit_path(tmp_path / "base.vhdx", format="vhdx") as image:
        image.write(0, b"x")
    with pytest.raises(ParentMismatch), open_path(tmp_path / "child.avhdx", format="vhdx"):
        pass


class Meddling(MemoryDevice):
    """A disk during whose reading somebody does something."""

    def __init__(self, content: bytes, act: Callable[[], None]) -> None:
        super().__init__(content)
        self._act = act

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._act()
        super().read_into(offset, buffer)


def test_a_parent_that_changes_meanwhile_is_found_before_there_is_a_child(tmp_path: Path) -> None:
    parent, content = base(tmp_path)

    def change() -> None:
        with edit_path(parent, format="vhdx") as image:
            image.write(0, b"x")

    with pytest.raises(ParentMismatch):
        make(tmp_path, Meddling(bytes(content), change))
    assert [path.name for path in tmp_path.iterdir()] == ["base.vhdx"]


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    base(tmp_path)
    content = Content(MemoryDevice(pattern(SIZE)), stop=lambda: True)
    parent = tmp_path / "base.vhdx"
    with pytest.raises(Stopped):
        create_child(parent, tmp_path / "c.avhdx", unique_id=ID, content=content)
    assert [path.name for path in tmp_path.iterdir()] == ["base.vhdx"]


def test_a_child_lies_beside_its_parent(tmp_path: Path) -> None:
    base(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(ReferenceRefused, match="not in the folder"):
        make(tmp_path, None, "x/child.avhdx")
    make(tmp_path, None, "x/../child.avhdx")


def test_a_parent_whose_name_no_child_may_name_is_refused(tmp_path: Path) -> None:
    parent = base(tmp_path)[0].rename(tmp_path / "a:b.vhdx")
    with pytest.raises(ReferenceRefused, match="plain name"):
        create_child(parent, tmp_path / "child.avhdx", unique_id=ID)


def test_a_link_to_a_parent_is_refused(tmp_path: Path) -> None:
    base(tmp_path)
    (tmp_path / "link.vhdx").symlink_to("base.vhdx")
    with pytest.raises(ReferenceRefused, match="symbolic link"):
        create_child(tmp_path / "link.vhdx", tmp_path / "child.avhdx", unique_id=ID)
    assert not (tmp_path / "child.avhdx").exists()


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    base(tmp_path)
    (tmp_path / "child.avhdx").write_bytes(b"mine")
    with pytest.raises(FileExists):
        make(tmp_path, None)
    assert (tmp_path / "child.avhdx").read_bytes() == b"mine"


def test_an_image_below_is_not_overwritten_by_its_descendant(tmp_path: Path) -> None:
    files = vhdx_chain([(MiB, [(0, pattern(MiB))]), (MiB, [])])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    bottom, top = (tmp_path / name for name in files)
    with pytest.raises(InvalidImage, match="comes back"):
        create_child(top, bottom, unique_id=ID, overwrite=True)
    assert bottom.read_bytes() == files[bottom.name]


def test_a_chain_grows_as_long_as_it_can_be_read(tmp_path: Path) -> None:
    Vhdx(MiB, {0: pattern(MiB)}).write(tmp_path / "0.vhdx")
    for number in range(1, 32):
        parent, child = tmp_path / f"{number - 1}.vhdx", tmp_path / f"{number}.vhdx"
        create_child(parent, child, unique_id=uuid.UUID(int=number))
    with pytest.raises(InvalidImage, match="more than 32"):
        create_child(tmp_path / "31.vhdx", tmp_path / "32.vhdx", unique_id=ID)
    assert read(tmp_path / "31.vhdx") == pattern(MiB)


def test_a_parent_must_be_a_vhdx(tmp_path: Path) -> None:
    (tmp_path / "base.vhdx").write_bytes(pattern(MiB))
    with pytest.raises(ImagingError, match="no VHDX"):
        make(tmp_path, None)


def test_a_disk_of_other_sectors_is_refused(tmp_path: Path) -> None:
    base(tmp_path, sector=4096)
    content = Content(MemoryDevice(pattern(SIZE)), sector_size=512)
    parent = tmp_path / "base.vhdx"
    with pytest.raises(ParentMismatch, match="sectors of 512 bytes, its parent would have 4096"):
        create_child(parent, tmp_path / "c.avhdx", unique_id=ID, content=content)


def test_a_disk_beyond_64_tib_is_refused(tmp_path: Path) -> None:
    base(tmp_path)
    source = FileDevice(write_sparse(tmp_path / "disk.raw", 1 << 43, {}))
    source._size = (1 << 46) + 512  # more than ext4 takes
    with pytest.raises(DiskTooLarge):
        make(tmp_path, source)
    source.close()


def test_after_a_power_loss_it_is_whole_or_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = base(tmp_path)
    content[MiB - 100 : MiB + 3000] = bytes(3100)
    content[4 * MiB : 6 * MiB] = pattern(2 * MiB, 72)
    made: list[RecordedFile] = []

    def recorded(path: Path, *, replace: bool) -> RecordedFile:
        made.append(RecordedFile(path, replace=replace))
        return made[-1]

    monkeypatch.setattr(child_module, "NewFile", recorded)
    make(tmp_path, bytes(content))
    opened = 0
    for state, _, _ in made[0].recording.states():
        try:
            file = MemoryDevice(state)
            image = open_image(file, format="vhdx", siblings=LocalFolder(tmp_path))
        except ImagingError:
            continue
        assert read_bytes(image, 0, image.size) == content
        image.close()
        opened += 1
    assert opened


def test_runs_of_sectors_that_differ() -> None:
    old = bytearray(4096)
    for changed, runs in (
        ([], []),
        ([0], [(0, 512)]),
        ([511, 512], [(0, 1024)]),
        ([512, 2000, 4095], [(512, 1024), (1536, 2048), (3584, 4096)]),
    ):
        new = bytearray(old)
        for at in changed:
            new[at] = 1
        assert list(changed_runs(new, old, 512)) == runs
