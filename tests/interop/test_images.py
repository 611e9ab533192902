"""Real images and images made by qemu-img: `imageport disk` must find what independent readers found."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import pyvhdi
from dissect.hypervisor.disk.vhdx import VHDX

from appliance.cli.main import main
from imaging.formats.vhd.layout import build_fixed_footer
from tests.support.chains import Writes, model, vhd_chain, vhdx_chain
from tests.support.disks import (
    DATA_DIR,
    DynamicVhd,
    GiB,
    MiB,
    Vhdx,
    convert,
    needs_qemu_img,
    pattern,
    qemu_img,
    root_of,
    unpack,
    vhd_footer,
    write_sparse,
)
from tests.support.samples import samples, unpack_all

SAMPLE = "fat-differential.vhd.xz"
pytestmark = pytest.mark.interop


def _digest(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code = main(["disk", "digest", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("packed", "ref"), samples())
def test_sample(
    packed: Path, ref: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer = _digest(capsys, unpack_all(packed, ref, tmp_path))
    if ref["expect"] == "refuse":
        assert code in (65, 66)
        assert answer["schema"] == "error/1"
    else:
        assert code == 0, answer
        assert answer == {
            "schema": "disk-digest/1",
            "virtual_size": ref["virtual_size"],
            "block_size": 524288,
            "root": ref["root_digest"],
        }


@pytest.mark.parametrize(("packed", "ref"), samples())
def test_a_check_finds_in_a_sample_only_what_is_there(
    packed: Path, ref: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["disk", "check", "--json", str(unpack_all(packed, ref, tmp_path))])
    answer = json.loads(capsys.readouterr().out)
    if ref["expect"] == "refuse":
        assert code in (65, 66)
    else:
        found = [finding["code"] for finding in answer["findings"]]
        found = [code for code in found if code != "check.content-unread"]  # how far it looked
        dirty = "DIRTY LOG" in ref.get("note", "")
        assert (code, found) == ((1, ["check.log-pending"]) if dirty else (0, []))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk whose size no CHS geometry has, with holes, a short last block and written zeros."""
    size = 37 * MiB + 5 * 512
    parts = {0: b"MBR".ljust(512, b"\1"), 5 * MiB + 512: pattern(3 * MiB), 20 * MiB: bytes(2 * MiB)}
    parts[size - 700] = pattern(700, 2)
    return write_sparse(tmp_path_factory.mktemp("source") / "disk.raw", size, parts)


FORMS = {
    "vhd-fixed-exact": ("vpc", "subformat=fixed,force_size=on", "vhd", "fixed"),
    "vhd-fixed-rounded": ("vpc", "subformat=fixed", "vhd", "fixed"),
    "vhd-dynamic-exact": ("vpc", "subformat=dynamic,force_size=on", "vhd", "dynamic"),
    "vhd-dynamic-rounded": ("vpc", "subformat=dynamic", "vhd", "dynamic"),
    "vhdx-dynamic": ("vhdx", "subformat=dynamic", "vhdx", "dynamic"),
    "vhdx-dynamic-1M": ("vhdx", "subformat=dynamic,block_size=1M", "vhdx", "dynamic"),
    "vhdx-dynamic-256M": ("vhdx", "subformat=dynamic,block_size=256M", "vhdx", "dynamic"),
    "vhdx-log": ("vhdx", "log_size=8M", "vhdx", "dynamic"),
    "vhdx-zeros-as-holes": ("vhdx", "block_state_zero=off", "vhdx", "dynamic"),
    "vhdx-fixed": ("vhdx", "subformat=fixed", "vhdx", "fixed"),
    "raw": ("raw", "", "raw", ""),
    "vmdk": ("vmdk", "", "vmdk", "monolithicSparse"),
    "vmdk-compat6": ("vmdk", "compat6", "vmdk", "monolithicSparse"),
    "vmdk-hwversion": ("vmdk", "hwversion=13,adapter_type=lsilogic", "vmdk", "monolithicSparse"),
    "vmdk-toolsversion": ("vmdk", "toolsversion=2147483647", "vmdk", "monolithicSparse"),
    "vmdk-zeroed-grain": ("vmdk", "zeroed_grain=on", "vmdk", "monolithicSparse"),
    "vmdk-flat": ("vmdk", "subformat=monolithicFlat", "vmdk", "monolithicFlat"),
    "vmdk-2gb-sparse": ("vmdk", "subformat=twoGbMaxExtentSparse", "vmdk", "twoGbMaxExtentSparse"),
    "vmdk-2gb-flat": ("vmdk", "subformat=twoGbMaxExtentFlat", "vmdk", "twoGbMaxExtentFlat"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized", "vmdk", "streamOptimized"),
    "vmdk-stream-compat6": (
        "vmdk",
        "subformat=streamOptimized,compat6,adapter_type=buslogic",
        "vmdk",
        "streamOptimized",
    ),
}


@needs_qemu_img
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_images_of_qemu_hold_the_disk_they_were_made_from(
    form: tuple[str, str, str, str], disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, options, family, subformat = form
    image = convert(disk, tmp_path / f"image.{family}", name, options)
    assert main(["disk", "info", "--json", str(image)]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["format"], info["subformat"], info["dirty"]) == (family, subformat, False)
    assert info["file_size"] == image.stat().st_size
    content = disk.read_bytes()
    rounded = name == "vpc" and "force_size" not in options
    if rounded:  # qemu rounds up to a geometry: the disk is longer, and its root another one
        assert info["virtual_size"] > len(content)
        content = content.ljust(info["virtual_size"], b"\0")
    assert info["virtual_size"] == len(content)
    code, answer = _digest(capsys, image)
    assert (code, answer["root"]) == (0, root_of(content))
    assert main(["disk", "check", str(image)]) == 0, capsys.readouterr().out


@needs_qemu_img
def test_a_big_sparse_vhdx_of_qemu_costs_only_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "big.vhdx"
    qemu_img("create", "-q", "-f", "vhdx", image, "64G")
    code, answer = _digest(capsys, image)
    zero = hashlib.sha256(bytes(524288)).digest()
    head = b"imageport-digest/1\0" + struct.pack(">QQ", 64 * GiB, 524288)
    assert (code, answer["virtual_size"]) == (0, 64 * GiB)
    assert answer["root"] == "sha256:" + hashlib.sha256(head + zero * 131072).hexdigest()


@needs_qemu_img
def test_a_footer_of_ours_is_a_vhd_of_exactly_that_size_to_qemu(tmp_path: Path) -> None:
    size = 3 * MiB
    image = tmp_path / "ours.vhd"
    footer = build_fixed_footer(size, unique_id=bytes(range(16)), timestamp=0)
    image.write_bytes(pattern(size) + footer)
    info = json.loads(qemu_img("info", "-f", "vpc", "--output=json", image))
    assert info["virtual-size"] == size


def _by_qemu(image: Path, form: str) -> bytes:
    raw = image.with_suffix(".qemu")
    qemu_img("convert", "-f", form, "-O", "raw", image, raw)
    return raw.read_bytes()


@needs_qemu_img
def test_the_hand_built_images_of_the_tests_are_images_to_qemu_too(tmp_path: Path) -> None:
    size = 5 * MiB + 512
    blocks = {4: pattern(MiB, 4), 0: pattern(MiB, 0), 5: pattern(512, 5)}
    disk = bytearray(6 * MiB)
    for block, data in blocks.items():
        disk[block * MiB : block * MiB + len(data)] = data
    vhdx = Vhdx(size, blocks, states={1: 2}).write(tmp_path / "a.vhdx")
    vhd = tmp_path / "a.vhd"
    vhd.write_bytes(DynamicVhd(size, blocks, block_size=MiB).build())
    for image, form in ((vhdx, "vhdx"), (vhd, "vpc")):
        assert _by_qemu(image, form)[:size] == bytes(disk[:size])


@needs_qemu_img
def test_a_replayed_log_is_what_qemu_makes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = unpack(DATA_DIR / "vhdx-log-replay.vhdx.xz", tmp_path)
    _, ours = _digest(capsys, image)
    qemu_img("check", "-q", "-r", "all", "-f", "vhdx", image)
    assert main(["disk", "info", "--json", str(image)]) == 0
    assert json.loads(capsys.readouterr().out)["dirty"] is False
    code, replayed = _digest(capsys, image)
    assert (code, replayed["root"]) == (0, ours["root"])


# --- chains: qemu-img reads no differencing VHD or VHDX, so others judge -------------------------


def _changes(size: int) -> list[tuple[int, Writes]]:
    """A full base and a child that changed whole blocks, parts of blocks and single sectors."""
    writes = [(0, pattern(4096, 7)), (MiB, pattern(2 * MiB, 8)), (4 * MiB - 512, pattern(1024, 9))]
    return [(size, [(0, pattern(size))]), (size, writes)]


def _write_all(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_dissect_reads_a_vhdx_chain_as_we_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = _changes(6 * MiB)
    *_, top = _write_all(tmp_path, vhdx_chain(layers))
    theirs = VHDX(top)
    try:
        assert theirs.read(6 * MiB) == model(layers)
    finally:
        theirs.fh.close()
        theirs.parent.fh.close()
    assert _digest(capsys, top)[1]["root"] == root_of(model(layers))


def test_libvhdi_reads_whole_blocks_of_a_vhd_chain_as_we_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whole blocks only: libvhdi does not look at the bitmap.
    size = 4 * MiB
    layers: list[tuple[int, Writes]] = [
        (size, [(0, pattern(size))]),
        (size, [(MiB, pattern(MiB, 8))]),
    ]
    base, top = _write_all(tmp_path, vhd_chain(layers))
    parent, child = pyvhdi.file(), pyvhdi.file()
    parent.open(str(base))
    child.open(str(top))
    try:
        child.set_parent(parent)
        assert child.read_buffer_at_offset(size, 0) == model(layers)
    finally:
        child.close()
        parent.close()
    assert _digest(capsys, top)[1]["root"] == root_of(model(layers))


def test_a_checkpoint_of_windows_is_read_over_its_parent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = unpack(DATA_DIR / SAMPLE, tmp_path).read_bytes()
    (size,) = struct.unpack_from(">Q", child, len(child) - 512 + 48)
    footer = vhd_footer(size, unique_id=child[512 + 40 : 512 + 56])
    content = pattern(size)
    (tmp_path / "fat-parent.vhd").write_bytes(content + footer)
    assert main(["disk", "info", "--json", str(tmp_path / "fat-differential.vhd")]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["subformat"], info["parent"]) == ("differencing", "fat-parent.vhd")
    # The bitmaps, read here bit by bit: sectors with a 0 are the parent's.
    expected, (table,), (block_size,) = (
        bytearray(content),
        *(struct.unpack_from(form, child, 512 + at) for form, at in ((">Q", 16), (">I", 32))),
    )
    for block in range(-(-size // block_size)):
        (entry,) = struct.unpack_from(">I", child, table + 4 * block)
        for sector in range(block_size // 512 if entry != 0xFFFFFFFF else 0):
            if child[entry * 512 + sector // 8] & 0x80 >> sector % 8:
                at = (entry + block_size // 512 // 8 // 512 + sector) * 512
                place = block * block_size + sector * 512
                expected[place : place + 512] = child[at : at + 512]
    assert _digest(capsys, tmp_path / "fat-differential.vhd")[1]["root"] == root_of(expected[:size])
