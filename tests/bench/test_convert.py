"""`imageport disk convert` against `qemu-img convert`: whole processes, turn by turn, warm cache; asserts no time.

The disk is an ext4 of the machine's own /usr, 250 MiB of random and 200 MiB of written zeros, the rest holes; all of it
lies in memory (tmpfs) where there is room, so that neither disk nor writeback is measured. Every pair meets what else
the machine does; the best of each and the best ratio of one pair are printed.

BENCH_GIB: size of the disk (8), BENCH_DATA_MIB: of files in it (1600), BENCH_RUNS: turns (5).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.filedev import FileDevice
from tests.bench.launch import Launched, launch
from tests.support.disks import GiB, MiB, needs_qemu_img, qemu_img, write_sparse

pytestmark = [pytest.mark.bench, needs_qemu_img]

SIZE = int(os.environ.get("BENCH_GIB", "8")) * GiB
FILES = int(os.environ.get("BENCH_DATA_MIB", "1600")) * MiB
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
MEMORY = Path("/dev/shm")
IMAGEPORT = [sys.executable, "-m", "appliance.cli.main", "disk", "convert"]
PLAIN = "--no-digest"


def ours(source: Path, target: Path, to: str, *options: str) -> Launched:
    target.unlink(missing_ok=True)
    return launch(*IMAGEPORT, source, target, "--to", to, *options)


def qemu(source: Path, target: Path, *options: str, form: str = "raw") -> Launched:
    target.unlink(missing_ok=True)
    return launch("qemu-img", "convert", "-f", form, *options, source, target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    room = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * FILES + GiB else None
    path = tmp_path_factory.mktemp("bench") if room is None else MEMORY / f"convert-{os.getpid()}"
    path.mkdir(exist_ok=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def disk(folder: Path) -> Path:
    """A realistic raw disk."""
    tree = folder / "tree"
    tree.mkdir()
    left = FILES
    for number, file in enumerate(path for path in Path("/usr").rglob("*") if path.is_file()):
        if file.is_symlink() or not os.access(file, os.R_OK):
            continue
        left -= file.stat().st_size
        if left < 0:
            break
        shutil.copyfile(file, tree / str(number))
    with (tree / "random").open("wb") as file:
        for _ in range(250):
            file.write(os.urandom(MiB))
    path = write_sparse(folder / "disk.raw", SIZE, {})
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, path], check=True)
    shutil.rmtree(tree)
    with path.open("r+b") as out:  # far behind the files: where no data are yet
        out.seek(SIZE - GiB)
        for _ in range(200):
            out.write(bytes(MiB))
    return path


@pytest.fixture(scope="module")
def data(folder: Path, disk: Path) -> Path:
    """The data of the disk alone, for tools that read holes too."""
    path = folder / "data"
    device = FileDevice(disk)
    with path.open("wb") as out:
        for extent in device.extents(0, device.size):
            if extent.is_data:
                buffer = bytearray(extent.length)
                device.read_into(extent.offset, memoryview(buffer))
                out.write(buffer)
    device.close()
    return path


def show(name: str, pairs: list[tuple[Launched, Launched]]) -> None:
    """Print a row: ours, the other's, and how they compare."""
    mine, other = (min(runs, key=lambda run: run.wall) for runs in zip(*pairs, strict=True))
    ratio = min(mine.wall / other.wall for mine, other in pairs)
    sys.stdout.write(
        f"\n{name:<44} {mine.wall:6.2f} s {mine.cpu:6.2f} CPU s {max(m.rss for m, _ in pairs):4.0f} MiB |"
        f" {other.wall:6.2f} s {other.cpu:6.2f} CPU s | best/best {mine.wall / other.wall:.2f},"
        f" best pair {ratio:.2f}, CPU {mine.cpu / other.cpu:.2f}"
    )
    sys.stdout.flush()


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("raw", ("-O", "raw")),
        ("vhd:fixed", ("-O", "vpc", "-o", "subformat=fixed,force_size=on")),
        ("vhd:dynamic", ("-O", "vpc", "-o", "force_size=on")),
        ("vhdx:dynamic", ("-O", "vhdx", "-o", "block_size=2M")),
        ("vhdx:fixed", ("-O", "vhdx", "-o", "subformat=fixed")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_from_raw(to: str, options: tuple[str, ...], folder: Path, disk: Path, data: Path) -> None:
    mine, other = folder / "mine", folder / "other"
    plain, digest, tools = [], [], []
    for _ in range(RUNS):
        by_qemu = qemu(disk, other, *options)
        plain.append((ours(disk, mine, to, PLAIN), by_qemu))
        hashing = ours(disk, mine, to)
        digest.append((hashing, qemu(disk, other, *options)))
        tools.append((hashing, digest[-1][1] + launch("sha256sum", data)))
    show(f"raw -> {to}, no digest", plain)
    show(f"raw -> {to}, digest", digest)
    show(f"raw -> {to}, digest, and sha256sum of the data", tools)
    mine.unlink()
    other.unlink()


@pytest.mark.parametrize("form", ["vhdx", "vpc", "qcow2"])
def test_to_raw(form: str, folder: Path, disk: Path) -> None:
    image, mine, other = folder / "image", folder / "mine", folder / "other"
    qemu_img("convert", "-f", "raw", "-O", form, disk, image)
    options = ("--format", {"vpc": "vhd"}.get(form, form))
    pairs = []
    for _ in range(RUNS):
        hashing = ours(image, mine, "raw", *options)
        pairs.append((hashing, qemu(image, other, "-O", "raw", form=form)))
    show(f"{form} -> raw, digest", pairs)
    for path in (image, mine, other):
        path.unlink()


@pytest.mark.parametrize(
    ("to", "options"),
    [("raw", ("-O", "raw")), ("vhdx:dynamic", ("-O", "vhdx", "-o", "block_size=2M"))],
    ids=["raw", "vhdx"],
)
def test_from_a_stream(to: str, options: tuple[str, ...], folder: Path, disk: Path) -> None:
    image, mine, other = folder / "image", folder / "mine", folder / "other"
    ours(disk, image, "vmdk:streamOptimized", PLAIN)
    pairs = []
    for _ in range(RUNS):
        hashing = ours(image, mine, to, "--format", "vmdk")
        pairs.append((hashing, qemu(image, other, *options, form="vmdk")))
    show(f"streamOptimized -> {to}, digest", pairs)
    for path in (image, mine, other):
        path.unlink()


def test_a_huge_disk_costs_its_data(folder: Path) -> None:
    source = write_sparse(folder / "huge.raw", 2048 * GiB - 8 * GiB, {})
    with source.open("r+b") as out:
        for number in range(64):
            out.seek(number * 31 * GiB)
            out.write(os.urandom(16 * MiB))
    pairs = []
    for _ in range(RUNS):
        mine = ours(source, folder / "mine", "vhdx:dynamic")
        pairs.append((mine, qemu(source, folder / "other", "-O", "vhdx", "-o", "block_size=2M")))
    show("2 TiB with 1 GiB of data -> vhdx:dynamic, digest", pairs)
    for name in ("mine", "other", "huge.raw"):
        (folder / name).unlink()
