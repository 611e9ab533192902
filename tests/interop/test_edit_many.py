"""Disks of hundreds of blocks, written in place by chance over several openings, against a raw file and qemu-img.

What only shows after many blocks (room made ahead, tables that grow) the small disks of the unit tests never meet.
"""

import os
import random
import uuid
from pathlib import Path

import pytest

from imaging.compare import compare_devices
from imaging.convert.child import create_child
from imaging.filedev import FileDevice
from imaging.formats import check_path, edit_path, open_path, resize_path
from imaging.formats.base import WritableImage
from tests.support.disks import KiB, MiB, needs_qemu_img, qemu_img

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600), needs_qemu_img]

KINDS = {
    "vhd-fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhd-dynamic": ("vpc", "subformat=dynamic,force_size=on"),
    "vhdx-fixed": ("vhdx", "subformat=fixed"),
    "vhdx-small-blocks": ("vhdx", "block_size=1M"),
    "vhdx-large-blocks": ("vhdx", "block_size=32M"),
    "vhdx-child": ("vhdx", "block_size=1M"),
    "vhdx-child-large-blocks": ("vhdx", "block_size=8M"),
}
LENGTHS = (1, 511, 512, 513, 4 * KiB, 64 * KiB, 300_000, 3 * MiB + 1)


def change(image: WritableImage, raw: FileDevice, chance: random.Random, steps: int) -> None:
    """Write and zero in both, flush at times and in the end."""
    for _ in range(steps):
        offset = chance.randrange(image.size)
        length = min(chance.choice(LENGTHS), image.size - offset)
        if chance.random() < 0.2:
            image.zero(offset, length)
            raw.zero(offset, length)
        else:
            data = (chance.randbytes(min(length, 64 * KiB)) * (length // (64 * KiB) + 1))[:length]
            image.write(offset, data)
            raw.write(offset, data)
        if chance.random() < 0.05:
            image.flush()
    image.flush()


def sessions(kind: str, folder: Path, seed: int, *, openings: int, steps: int) -> None:
    """Change a disk in several openings, make it larger between two of them, and compare after each."""
    chance = random.Random(f"{kind} {seed}")
    size = chance.choice([100, 260, 500]) * MiB
    form, options = KINDS[kind]
    ours = "vhd" if form == "vpc" else form
    image, raw = folder / f"disk.{ours}", folder / "disk.raw"
    qemu_img("create", "-q", "-f", form, "-o", options, image, str(size))
    raw.touch()
    os.truncate(raw, size)
    file = FileDevice(raw, writable=True)
    for number in range(openings):
        if number == 1 and "child" in kind:
            parent, image = image, folder / "child.avhdx"
            create_child(parent, image, unique_id=uuid.uuid4())
        elif number == openings // 2 and "child" not in kind:
            size += chance.choice([512, 4 * MiB, 300 * MiB])
            resize_path(image, size, format=ours)
            file.truncate(size)
        with edit_path(image, format=ours) as opened:
            change(opened, file, chance, steps)
        with open_path(image) as opened:
            assert compare_devices(opened, file).first_difference is None
        assert check_path(image).clean
    file.close()
    if "child" in kind:
        return  # qemu-img opens no differencing VHDX
    assert "identical" in qemu_img("compare", "-f", form, "-F", "raw", image, raw)
    if form == "vhdx":
        qemu_img("check", "-q", "-f", "vhdx", image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_of_many_blocks(kind: str, tmp_path: Path) -> None:
    sessions(kind, tmp_path, 1, openings=4, steps=60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_many_disks_of_many_blocks(kind: str, seed: int, tmp_path: Path) -> None:
    sessions(kind, tmp_path, 100 + seed, openings=8, steps=400)
