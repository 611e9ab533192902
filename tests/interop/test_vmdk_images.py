"""VMDKs and OVAs of qemu-img and qemu-io beyond one file: they hold what qemu reads in them, where qemu is right."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from imaging.formats import check_path
from tests.support import vmdks
from tests.support.disks import (
    GiB,
    MiB,
    convert,
    needs_qemu_img,
    pattern,
    qemu_img,
    qemu_io,
    write_sparse,
)

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with holes, a short last grain and written zeros."""
    parts = {0: b"MBR".ljust(512, b"\1"), 5 * MiB + 512: pattern(3 * MiB), 20 * MiB: bytes(2 * MiB)}
    return write_sparse(tmp_path_factory.mktemp("source") / "disk.raw", 37 * MiB + 5 * 512, parts)


def _digest(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code = main(["disk", "digest", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def _by_qemu(image: Path, form: str) -> bytes:
    raw = image.with_suffix(".qemu")
    qemu_img("convert", "-f", form, "-O", "raw", image, raw)
    return raw.read_bytes()


def _assert_holds(image: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _digest(capsys, image)[1]["root"] == _digest(capsys, raw, "--format", "raw")[1]["root"]
    assert check_path(image).clean


@needs_qemu_img
@pytest.mark.parametrize("subformat", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_disk_of_three_files_of_qemu(
    subformat: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {0: pattern(MiB), 2 * GiB - 4096: pattern(8192, 2), 4 * GiB + MiB: pattern(MiB, 3)}
    raw = write_sparse(tmp_path / "disk.raw", 4 * GiB + 2 * MiB, parts)
    image = convert(raw, tmp_path / "disk.vmdk", "vmdk", f"subformat={subformat}")
    letter = "s" if subformat.endswith("Sparse") else "f"
    assert (tmp_path / f"disk-{letter}003.vmdk").is_file()
    _assert_holds(image, raw, capsys)
    (tmp_path / f"disk-{letter}002.vmdk").unlink()
    code, answer = _digest(capsys, image)
    assert code == 66
    assert f"disk-{letter}002.vmdk" in json.dumps(answer)


@needs_qemu_img
@pytest.mark.parametrize("zeroed", ["off", "on"])
def test_a_delta_link_of_qemu_over_its_parent(
    zeroed: str, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, top = convert(disk, tmp_path / "base.vmdk", "vmdk"), tmp_path / "top.vmdk"
    options = f"zeroed_grain={zeroed}"
    qemu_img("create", "-q", "-f", "vmdk", "-o", options, "-b", base, "-F", "vmdk", top)
    writes = [
        "write -P 7 6M 100k",
        "write -P 9 30M 64k",
        "write -z 5M 1M",
        "write -P 1 37888000 512",
    ]
    qemu_io(top, *writes)
    raw = tmp_path / "top.raw"
    qemu_img("convert", "-f", "vmdk", "-O", "raw", top, raw)
    assert raw.read_bytes() != disk.read_bytes()
    _assert_holds(top, raw, capsys)
    assert main(["disk", "info", "--json", str(top)]) == 0
    assert json.loads(capsys.readouterr().out)["parent"] == "base.vmdk"
    qemu_io(base, "write -P 3 0 512")  # the parent's content id changes with the first write
    code, answer = _digest(capsys, top)
    assert (code, answer["code"]) == (65, "imaging.parent-mismatch")


@needs_qemu_img
def test_the_hand_built_vmdks_of_the_tests_are_vmdks_to_qemu_too(tmp_path: Path) -> None:
    size = 5 * MiB + 512
    grains = {n: pattern(vmdks.GRAIN, n) for n in (9, 0, 1, 600)} | {640: pattern(512, 5)}
    expected = vmdks.disk_of(size, grains)
    images = {
        "plain": vmdks.SparseVmdk(size, grains, flags=7, entries={3: 1}),
        "stream": vmdks.StreamVmdk(size, grains),
        "stream-without-footer": vmdks.StreamVmdk(size, grains, has_footer=False),
    }
    for name, image in images.items():
        path = tmp_path / f"{name}.vmdk"
        path.write_bytes(image.build())
        assert _by_qemu(path, "vmdk") == expected, name


@needs_qemu_img
def test_a_directory_that_points_nowhere_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "bad.vmdk"
    made = vmdks.SparseVmdk(MiB, {0: pattern(vmdks.GRAIN)}, flags=1)
    made.parts = {made.places()["directory"] * 512: struct.pack("<I", 1 << 30)}
    image.write_bytes(made.build())
    code, answer = _digest(capsys, image)
    assert (code, answer["code"]) == (65, "imaging.truncated")


@needs_qemu_img
def test_an_appliance_round_a_stream_of_qemu(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = convert(disk, tmp_path / "disk.vmdk", "vmdk", "subformat=streamOptimized")
    appliance = tmp_path / "vm.ova"
    appliance.write_bytes(vmdks.ova(stream.read_bytes()))
    assert main(["disk", "info", "--json", str(appliance)]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["format"], info["subformat"]) == ("ova", "streamOptimized")
    _assert_holds(appliance, disk, capsys)
