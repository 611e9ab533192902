"""What `imageport disk convert` writes, read by others: qemu-img, libvhdi and dissect find the disk that went in."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from imaging.convert import TARGETS
from imaging.formats import open_path
from tests.support.disks import (
    GiB,
    MiB,
    Vhdx,
    convert,
    needs_qemu_img,
    pattern,
    qemu_img,
    write_sparse,
)
from tests.support.samples import samples, unpack_all

pytestmark = [pytest.mark.interop, needs_qemu_img]

QEMU = {"raw": "raw", "vhd": "vpc", "vhdx": "vhdx", "vmdk": "vmdk", "qcow2": "qcow2"}
SELF = [name for name in TARGETS if name.partition(":")[0] in ("raw", "vhd", "vhdx")]


def run(source: Path, target: Path, to: str, capsys: pytest.CaptureFixture[str]) -> Any:
    code = main(["disk", "convert", str(source), str(target), "--to", to, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == 0, answer
    return answer


def root_of_image(image: Path, form: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["disk", "digest", str(image), "--format", form]) == 0
    return capsys.readouterr().out.strip()


def by_libvhdi(image: Path, length: int) -> bytes:
    pyvhdi = pytest.importorskip("pyvhdi")
    file = pyvhdi.file()
    file.open(str(image))
    try:
        assert file.get_media_size() == length
        return bytes(file.read_buffer_at_offset(length, 0))
    finally:
        file.close()


def by_dissect(image: Path, form: str, length: int) -> bytes:
    module = pytest.importorskip(f"dissect.hypervisor.disk.{form}")
    with image.open("rb") as file:
        disk = {"vhd": "VHD", "vhdx": "VHDX"}[form]
        return bytes(getattr(module, disk)(file).read(length))


def disk(path: Path, size: int) -> Path:
    """A raw disk with a boot sector, a hole, unaligned data, written zeros and a last sector."""
    parts = {0: b"MBR".ljust(512, b"\1"), 5 * MiB + 512: pattern(3 * MiB), 20 * MiB: bytes(2 * MiB)}
    parts = {at: data for at, data in parts.items() if at + len(data) <= size}
    parts[size - min(size, 700)] = pattern(min(size, 700), 2)
    return write_sparse(path, size, parts)


@pytest.mark.parametrize("to", SELF)
@pytest.mark.parametrize("size", [512, 2 * MiB, 2 * MiB + 512, 37 * MiB + 5 * 512, 64 * MiB - 512])
def test_all_readers_find_the_disk(
    to: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, image = disk(tmp_path / "disk.raw", size), tmp_path / "image"
    form = to.partition(":")[0]
    root = run(source, image, to, capsys)["root"]
    qemu_img("compare", "-q", "-f", "raw", "-F", QEMU[form], source, image)
    info = json.loads(qemu_img("info", "-f", QEMU[form], "--output=json", image))
    assert info["virtual-size"] == size
    if form == "vhdx":
        qemu_img("check", "-q", "-f", "vhdx", image)
    if form != "raw":
        assert by_libvhdi(image, size) == source.read_bytes()
        assert by_dissect(image, form, size) == source.read_bytes()
    assert root_of_image(image, form, capsys) == root
    assert main(["disk", "check", str(image), "--format", form]) == 0
    assert capsys.readouterr().out.endswith(": clean\n")


@pytest.mark.parametrize("to", SELF)
def test_a_size_that_is_no_sector_is_the_same_disk_with_zeros_behind(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, image = disk(tmp_path / "disk.raw", 9 * MiB + 77), tmp_path / "image"
    answer = run(source, image, to, capsys)
    padded = 9 * MiB + (77 if to == "raw" else 512)
    assert (answer["virtual_size"], answer["padded_size"]) == (9 * MiB + 77, padded)
    with open_path(image, format=to.partition(":")[0]) as made:
        buffer = bytearray(made.size)
        made.read_into(0, memoryview(buffer))
    assert buffer == source.read_bytes().ljust(padded, b"\0")
    assert answer["root"] == root_of_image(source, "raw", capsys)


def _readable() -> list[Any]:
    """List the samples that must be read, but for the huge ones."""
    return [one for one in samples() if _is_readable(*one.values)]


def _is_readable(_path: Path, ref: dict[str, Any]) -> bool:
    return ref["expect"] != "refuse" and ref["virtual_size"] <= 8 * GiB


@pytest.mark.parametrize(("packed", "ref"), _readable())
def test_samples_go_through_every_format(
    packed: Path, ref: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = unpack_all(packed, ref, tmp_path)
    for to in ("raw", "vhd:dynamic", "vhdx:dynamic"):
        image = tmp_path / f"image-{to.partition(':')[0]}"
        answer = run(source, image, to, capsys)
        assert answer["root"] == ref["root_digest"]
        if answer["padded_size"] == answer["virtual_size"]:
            assert root_of_image(image, answer["format"], capsys) == ref["root_digest"]


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "subformat=dynamic,block_size=1M"),
        ("vhdx", "subformat=fixed"),
        ("qcow2", ""),
    ],
)
@pytest.mark.parametrize("to", ["raw", "vhdx:dynamic", "vhd:dynamic"])
def test_images_of_qemu_come_out_as_they_went_in(
    form: str, options: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = disk(tmp_path / "disk.raw", 37 * MiB + 5 * 512)
    source = convert(raw, tmp_path / "source", form, options)
    root = run(source, tmp_path / "image", to, capsys)["root"]
    family = to.partition(":")[0]
    qemu_img("compare", "-q", "-f", "raw", "-F", QEMU[family], raw, tmp_path / "image")
    assert root == root_of_image(raw, "raw", capsys)
    # What came of it is no larger than its data, whatever the source had allocated.
    assert (tmp_path / "image").stat().st_blocks * 512 < 5 * MiB


def test_sectors_of_4096_bytes_are_the_same_disk_to_dissect_and_libvhdi(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 5 * MiB + 4096
    blocks = {4: pattern(MiB, 4), 0: pattern(MiB, 0), 5: pattern(4096, 5)}
    source = Vhdx(size, blocks, sector=4096).write(tmp_path / "source.vhdx")
    for to in ("vhdx:dynamic", "vhdx:fixed"):
        image = tmp_path / f"{to[5:]}.vhdx"
        run(source, image, to, capsys)
        assert by_dissect(image, "vhdx", size) == by_dissect(source, "vhdx", size)
        assert by_libvhdi(image, size) == by_dissect(source, "vhdx", size)


@pytest.mark.parametrize(
    ("to", "size"),
    [("vhdx:dynamic", 64 << 40), ("vhd:dynamic", 2040 << 30), ("raw", 8 << 40)],
)
def test_a_huge_disk_with_little_in_it(
    to: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Vhdx(size, {0: b"first", 300_001: b"there"}, block_size=4 * MiB)
    source, image = disk.write(tmp_path / "a.vhdx"), tmp_path / "image"
    names = (str(source), str(image))
    assert main(["disk", "convert", *names, "--to", to, "--no-digest"]) == 0
    assert capsys.readouterr().out == ""
    assert image.stat().st_blocks * 512 < 12 * MiB
    with open_path(image, format=to.partition(":")[0]) as made:
        assert made.size == size
        for offset, word in ((0, b"first"), (300_001 * 4 * MiB, b"there")):
            buffer = bytearray(6)
            made.read_into(offset, memoryview(buffer))
            assert buffer == word + b"\0"
    if to == "vhdx:dynamic":
        qemu_img("check", "-q", "-f", "vhdx", image)


def test_a_fixed_vhd_for_azure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, image = disk(tmp_path / "disk.raw", 40 * MiB), tmp_path / "image.vhd"
    run(source, image, "vhd:fixed", capsys)
    footer = image.read_bytes()[-512:]
    assert image.stat().st_size == 40 * MiB + 512
    assert footer[:8] == b"conectix"
    assert struct.unpack(">Q", footer[48:56]) == (40 * MiB,)
    assert (footer[16:24], footer[28:32], footer[60:64]) == (b"\xff" * 8, b"win ", b"\0\0\0\2")
