"""What we write as VMDK and tar.gz is read by qemu-img, dissect.hypervisor, GNU tar and gzip: the same disk."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from dissect.hypervisor.disk.vmdk import VMDK

from appliance.cli.main import main
from imaging.convert import TARGETS
from imaging.formats import FORMATS, check_path
from tests.support.disks import GiB, KiB, MiB, needs_qemu_img, pattern, qemu_img, write_sparse

pytestmark = pytest.mark.interop

TiB = 1024 * GiB
NOISE = random.Random(5).randbytes(2 * MiB)

DISKS: dict[str, tuple[int, dict[int, bytes]]] = {
    "one sector": (512, {0: b"x" * 512}),
    "one sector of nothing": (512, {}),
    "zeros, partly written": (40 * MiB, {3 * MiB: bytes(2 * MiB)}),
    "noise": (2 * MiB, {0: NOISE}),
    "no multiple of a grain": (
        37 * MiB + 2560,
        {0: b"MBR", 5 * MiB + 512: pattern(3 * MiB), 37 * MiB + 1000: b"end"},
    ),
    "one grain table": (32 * MiB, {32 * MiB - 700: pattern(700)}),
    "above 128 GiB": (129 * GiB, {i * 9 * GiB: pattern(64 * KiB, i) for i in range(14)}),
    "2 TiB": (2 * TiB, {0: b"MBR", TiB + 512: pattern(MiB), 2 * TiB - 4096: pattern(4096)}),
}
QUICK = [name for name, (size, _) in DISKS.items() if size < TiB]
"""qemu-img compares even holes grain by grain: 2 TiB of them take it more than a minute."""
WHOLE_GRAINS = [name for name, (size, _) in DISKS.items() if size % (64 * KiB) == 0]
"""dissect.hypervisor 3.21 fails on a disk whose last grain is partial."""


@pytest.fixture(params=DISKS.values(), ids=DISKS.keys())
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    size, parts = request.param
    return write_sparse(tmp_path / "disk.raw", size, parts)


def stream(disk: Path, level: str = "fast") -> Path:
    return written(disk, "vmdk:streamOptimized", "--level", level)


def sparse(disk: Path) -> Path:
    return written(disk, "vmdk:monolithicSparse")


def written(disk: Path, to: str, *options: str) -> Path:
    image = disk.with_name(f"{'-'.join((to.partition(':')[2], *options))}.image")
    assert main(["disk", "convert", str(disk), str(image), "--to", to, *options]) == 0
    return image


@needs_qemu_img
@pytest.mark.parametrize("make", [stream, sparse])
@pytest.mark.parametrize("name", QUICK)
def test_qemu_finds_a_sound_image_with_the_same_disk(make, name: str, tmp_path: Path) -> None:
    disk = write_sparse(tmp_path / "disk.raw", *DISKS[name])
    image = make(disk)
    assert "No errors were found" in qemu_img("check", "-f", "vmdk", image)
    assert check_path(image).clean
    # Of disks of two sizes it would say so first.
    compared = qemu_img("compare", "-f", "raw", "-F", "vmdk", disk, image)
    assert compared == "Images are identical.\n"


@pytest.mark.parametrize("to", [to for to in TARGETS if to.partition(":")[0] == "vmdk"])
def test_our_reader_finds_the_same_root(
    to: str, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = written(disk, to)
    root = capsys.readouterr().out
    if "vmdk" in FORMATS:
        assert main(["disk", "digest", str(image)]) == 0
        assert capsys.readouterr().out == root
    assert main(["disk", "digest", str(disk)]) == 0
    assert capsys.readouterr().out == root


@needs_qemu_img
@pytest.mark.parametrize("name", ["noise", "no multiple of a grain"])
def test_qemu_converts_a_small_stream_back(name, tmp_path: Path) -> None:
    disk = write_sparse(tmp_path / "disk.raw", *DISKS[name])
    image = stream(disk, level="small")
    qemu_img("convert", "-f", "vmdk", "-O", "raw", image, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("make", [stream, sparse])
@pytest.mark.parametrize("name", WHOLE_GRAINS)
def test_dissect_reads_the_same_disk(make, name: str, tmp_path: Path) -> None:
    size, parts = DISKS[name]
    disk = write_sparse(tmp_path / "disk.raw", size, parts)
    with make(disk).open("rb") as file, disk.open("rb") as expected:
        image = VMDK(file)
        assert image.size == size
        for start, end in data_of(expected.fileno(), size):
            image.seek(start)
            expected.seek(start)
            assert image.read(end - start) == expected.read(end - start)


@pytest.mark.parametrize("level", ["fast", "small"])
def test_tar_and_gzip_unpack_the_disk_with_its_holes(level, disk: Path, tmp_path: Path) -> None:
    size = disk.stat().st_size
    padded = -(-size // GiB) * GiB
    archive = written(disk, "targz", "--level", level)
    run("gzip", "-t", archive)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    listed = run("tar", "-xvzf", archive, "-C", folder)
    assert listed == "disk.raw\n"
    found = folder / "disk.raw"
    assert found.stat().st_size == padded
    assert found.stat().st_blocks * 512 <= disk.stat().st_blocks * 512 + 4 * MiB
    with found.open("rb") as unpacked, disk.open("rb") as expected:
        ranges = {*data_of(unpacked.fileno(), padded), *data_of(expected.fileno(), size)}
        for start, end in ranges:
            unpacked.seek(start)
            expected.seek(start)
            assert unpacked.read(end - start) == expected.read(end - start).ljust(
                end - start, b"\0"
            )


@needs_qemu_img
def test_a_stream_is_no_larger_than_that_of_qemu(tmp_path: Path) -> None:
    text = b"".join(b"%d bottles of beer\n" % i for i in range(300_000))
    disk = write_sparse(tmp_path / "disk.raw", 64 * MiB, {0: text, 30 * MiB: NOISE})
    options = ("-o", "subformat=streamOptimized")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", *options, disk, tmp_path / "qemu.vmdk")
    theirs = (tmp_path / "qemu.vmdk").stat().st_size
    assert stream(disk, level="small").stat().st_size <= theirs
    assert stream(disk, level="fast").stat().st_size <= 1.10 * theirs


def data_of(fd: int, size: int) -> list[tuple[int, int]]:
    """Return where a file has data, as the file system tells."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
