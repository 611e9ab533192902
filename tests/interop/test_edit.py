"""Images written in place, read by others: qemu-img, libvhdi and dissect find the disk that we left."""

import random
import subprocess
import uuid
from pathlib import Path

import pytest
import pyvhdi
from dissect.hypervisor.disk.vhdx import VHDX

from imaging.convert.child import Content, create_child
from imaging.device import read_bytes
from imaging.filedev import FileDevice
from imaging.formats import check_path, edit_image, edit_path, open_path, resize_path
from imaging.formats.base import WritableImage
from imaging.memory import MemoryDevice
from tests.support.chains import vhdx_chain
from tests.support.disks import MiB, needs_qemu_img, pattern, qemu_img

pytestmark = [pytest.mark.interop, needs_qemu_img]
SIZE = 37 * MiB + 5 * 512


def change(image: WritableImage, model: bytearray, seed: int) -> None:
    """Write and zero by chance, in the disk and in the model."""
    chance = random.Random(seed)
    for number in range(30):
        offset = chance.randrange(len(model))
        length = min(chance.choice([1, 512, 5000, 1 << 20, 3 << 20]), len(model) - offset)
        if chance.random() < 0.7:
            data = pattern(length, seed * 100 + number)
            image.write(offset, data)
        else:
            data = bytes(length)
            image.zero(offset, length)
        model[offset : offset + length] = data
        if chance.random() < 0.2:
            image.flush()
    image.flush()


def by_qemu(image: Path, form: str) -> bytes:
    raw = image.with_suffix(".raw")
    qemu_img("convert", "-f", form, "-O", "raw", image, raw)
    return raw.read_bytes()


def by_libvhdi(image: Path) -> bytes:
    file = pyvhdi.file()
    file.open(str(image))
    try:
        return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
    finally:
        file.close()


def made_by_qemu(folder: Path, form: str, options: str) -> tuple[Path, bytearray]:
    """Make an image that holds a little."""
    model = bytearray(SIZE)
    model[: 2 * MiB] = pattern(2 * MiB, 50)
    (folder / "disk.raw").write_bytes(model)
    image = folder / f"image.{form}"
    qemu_img("convert", "-f", "raw", "-O", form, "-o", options, folder / "disk.raw", image)
    return image, model


@pytest.mark.parametrize(
    "options", ["block_size=1M", "block_size=8M", "subformat=fixed", "log_size=4M"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_vhdx_of_qemu(options: str, seed: int, tmp_path: Path) -> None:
    image, model = made_by_qemu(tmp_path, "vhdx", options)
    with edit_path(image, format="vhdx") as disk:
        change(disk, model, seed)
    qemu_img("check", "-q", "-f", "vhdx", image)
    assert by_qemu(image, "vhdx") == model
    assert by_libvhdi(image) == model
    with image.open("rb") as file:
        assert VHDX(file).read(SIZE) == model
    assert check_path(image).clean


@pytest.mark.parametrize("flushes", [1, 2, 3])
def test_a_log_of_ours_means_the_same_to_qemu(flushes: int, tmp_path: Path) -> None:
    """The file as a crash leaves it right after a flush, with one or both slots of the log in use."""
    image, model = made_by_qemu(tmp_path, "vhdx", "block_size=1M")
    file = FileDevice(image, writable=True)
    disk = edit_image(file, format="vhdx")
    for number in range(flushes):
        at = (5 + 3 * number) * MiB
        disk.write(at, pattern(MiB, number))
        model[at : at + MiB] = pattern(MiB, number)
        disk.flush()
    file.close()  # without the disk: as if the process had been killed
    with open_path(image) as found:
        assert found.info.dirty
        assert read_bytes(found, 0, SIZE) == model
    damaged = image.read_bytes()
    bat = _bat_offset(damaged)
    forgotten = damaged[:bat] + bytes(4096) + damaged[bat + 4096 :]
    (tmp_path / "forgotten.vhdx").write_bytes(forgotten)  # none of the changes reached its place
    for name in ("image.vhdx", "forgotten.vhdx"):
        command = ["qemu-img", "check", "-q", "-r", "all", "-f", "vhdx", tmp_path / name]
        subprocess.run(command, capture_output=True, check=False)
        assert by_qemu(tmp_path / name, "vhdx") == model, name


def _bat_offset(content: bytes) -> int:
    guid = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")
    at = content.index(guid, 192 << 10)
    return int.from_bytes(content[at + 16 : at + 24], "little")


def test_a_child_of_a_vhdx_is_what_dissect_reads(tmp_path: Path) -> None:
    base = pattern(6 * MiB, 8)
    files = vhdx_chain([(6 * MiB, [(0, base)]), (6 * MiB, [(MiB, pattern(512, 9))])])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    top, model = tmp_path / list(files)[-1], bytearray(base)
    model[MiB : MiB + 512] = pattern(512, 9)
    with edit_path(top, format="vhdx") as disk:
        change(disk, model, 5)
    theirs = VHDX(top)
    try:
        assert theirs.read(6 * MiB) == model
    finally:
        theirs.fh.close()
        theirs.parent.fh.close()


def test_a_child_of_ours_is_what_dissect_reads(tmp_path: Path) -> None:
    """An empty child of a file of qemu, written in place; and one that was converted to."""
    parent, model = made_by_qemu(tmp_path, "vhdx", "block_size=1M")
    child, other = tmp_path / "child.avhdx", tmp_path / "other.avhdx"
    create_child(parent, child, unique_id=uuid.UUID(int=1))
    assert by_dissect(child) == model
    with edit_path(child, format="vhdx") as disk:
        change(disk, model, 6)
    assert by_dissect(child) == model
    content = Content(MemoryDevice(bytes(model)))
    create_child(parent, other, unique_id=uuid.UUID(int=2), content=content)
    assert by_dissect(other) == model
    assert check_path(child).clean
    assert check_path(other).clean


def test_libvhdi_knows_the_parent_of_a_child_of_ours(tmp_path: Path) -> None:
    parent, model = made_by_qemu(tmp_path, "vhdx", "block_size=1M")
    model[:MiB] = pattern(
        MiB, 60
    )  # whole blocks: libvhdi ignores bitmaps and, in a locator, relative paths
    child = tmp_path / "child.avhdx"
    content = Content(MemoryDevice(bytes(model)))
    create_child(parent, child, unique_id=uuid.UUID(int=3), content=content)
    below, above = pyvhdi.file(), pyvhdi.file()
    below.open(str(parent))
    above.open(str(child))
    try:
        assert above.get_parent_identifier() == below.get_identifier()
        above.set_parent(below)
        assert above.read_buffer_at_offset(len(model), 0) == model
    finally:
        above.close()
        below.close()


def by_dissect(image: Path) -> bytes:
    disk = VHDX(image)
    try:
        return bytes(disk.read(SIZE))
    finally:
        disk.fh.close()
        disk.parent.fh.close()


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("vhdx", "block_size=1M"),
        ("vhdx", "subformat=fixed"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
    ],
)
def test_a_resized_image_of_qemu(form: str, options: str, tmp_path: Path) -> None:
    image, model = made_by_qemu(tmp_path, form, options)
    size = 6000 * MiB if form == "vpc" and "dynamic" in options else 100 * MiB
    resize_path(image, size, format={"vpc": "vhd"}.get(form, form))
    if form == "vhdx":
        qemu_img("check", "-q", "-f", "vhdx", image)
    with (tmp_path / "disk.raw").open("r+b") as raw:
        raw.truncate(size)
    # qemu takes the geometry of its own VHDs, which is a little less, so we judge those.
    with open_path(image, format={"vpc": "vhd"}.get(form, form)) as disk:
        assert disk.size == size
        assert read_bytes(disk, 0, SIZE) == model
        assert not any(extent.is_data for extent in disk.extents(64 * MiB, size - 64 * MiB))
    if form == "vhdx":
        qemu_img("compare", "-q", "-f", "raw", "-F", "vhdx", tmp_path / "disk.raw", image)
    file = pyvhdi.file()
    file.open(str(image))
    try:
        assert file.get_media_size() == size
        assert bytes(file.read_buffer_at_offset(SIZE, 0)) == model
    finally:
        file.close()
