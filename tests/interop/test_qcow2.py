"""qcow2 images of qemu-img, with every option that it has, are read bit by bit as qemu-img reads them."""

import json
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dissect.hypervisor.disk.qcow2 import QCow2

from imaging.check import Severity
from imaging.digest import digest_device
from imaging.errors import ImagingError
from imaging.formats import check_path, open_path
from imaging.formats.qcow2 import refcounts
from tests.support.disks import (
    GiB,
    KiB,
    MiB,
    needs_qemu_img,
    pattern,
    qemu_img,
    root_of,
    write_sparse,
)
from tests.support.qcow2_images import COMPRESSED, Qcow2, deflated

pytestmark = [pytest.mark.interop, needs_qemu_img]

SIZE = 9 * MiB + 5 * 512
TEXT = b"".join(b"line %d of a text that can be compressed\n" % n for n in range(50_000))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with random data, text, written zeros, holes and a short last cluster."""
    parts = {0: b"MBR".ljust(512, b"\1"), 2 * MiB + 512: pattern(700 * KiB), 4 * MiB: bytes(MiB)}
    parts |= {6 * MiB: TEXT[: 2 * MiB], SIZE - 700: pattern(700, 2)}
    return write_sparse(tmp_path_factory.mktemp("source") / "disk.raw", SIZE, parts)


def ours(image: Path) -> tuple[str, Any]:
    """Return root and description of an image as we read it."""
    with open_path(image) as opened:
        return digest_device(opened).root, opened.info


def by_qemu(image: Path) -> bytes:
    """Return the disk as qemu-img reads it."""
    raw = image.with_name(image.name + ".by-qemu")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
    return raw.read_bytes()


CLUSTERS = [f"cluster_size={size}" for size in ("512", "4k", "64k", "256k", "2M")]
OPTIONS = [
    *CLUSTERS,
    "compat=0.10",
    "compat=0.10,cluster_size=512",
    "compat=1.1",
    "lazy_refcounts=on",
    "refcount_bits=1",
    "refcount_bits=64",
    "compression_type=zstd",
    "compression_type=zstd,cluster_size=2M",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "extended_l2=on,cluster_size=2M",
    "extended_l2=on,compression_type=zstd",
]
PREALLOCATED = [
    *(f"preallocation={how}" for how in ("metadata", "falloc", "full")),
    "preallocation=metadata,extended_l2=on",
    "preallocation=falloc,cluster_size=2M",
]
DATA_FILES = [
    "data_file=disk.data",
    "data_file=disk.data,data_file_raw=on",
    "data_file=disk.data,extended_l2=on",
    "data_file=disk.data,data_file_raw=on,preallocation=metadata",
    "data_file=disk.data,preallocation=falloc",
]


@pytest.mark.parametrize("options", [*OPTIONS, *PREALLOCATED])
def test_plain(options: str, disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", options, disk, image)
    root, info = ours(image)
    assert check_path(image).clean
    assert root == root_of(disk.read_bytes())
    assert (info.format, info.virtual_size, info.warnings) == ("qcow2", SIZE, ())
    assert info.subformat == ("v2" if "0.10" in options else "v3")


@pytest.mark.parametrize("options", OPTIONS)
def test_compressed(options: str, disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, disk, image)
    assert image.stat().st_size < SIZE * 9 // 10 or "2M" in options
    assert ours(image)[0] == root_of(disk.read_bytes())


@pytest.mark.parametrize("options", DATA_FILES)
def test_data_file(
    options: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where qemu makes and looks for a data file of a relative name
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", options, disk, image)
    assert ours(image)[0] == root_of(disk.read_bytes())
    assert by_qemu(image) == disk.read_bytes()


@pytest.mark.parametrize(
    "options", ["cluster_size=512", "preallocation=metadata", "extended_l2=on", "data_file=d"]
)
def test_created_and_never_written(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, image, "5M")
    assert ours(image)[0] == root_of(bytes(5 * MiB))


# --- what `imageport disk check` finds, qemu-img check finds, and the other way round


def found_by_qemu(image: Path) -> tuple[bool, bool]:
    """Return whether qemu-img finds leaks, and damage (or does not open it)."""
    done = subprocess.run(
        ["qemu-img", "check", "--output=json", "-f", "qcow2", image],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        return False, True
    found = json.loads(done.stdout)
    return "leaks" in found, "corruptions" in found or found["check-errors"] > 0


def found_by_us(image: Path) -> tuple[bool, bool, bool]:
    """Return whether we find leaks, damage, and damage that ended the counting (or the opening)."""
    try:
        findings = check_path(image, format="qcow2").findings
    except ImagingError:
        return False, True, True
    severities = {finding.severity for finding in findings}
    is_uncounted = any(finding.code == "check.uncounted" for finding in findings)
    return Severity.WARNING in severities, Severity.ERROR in severities, is_uncounted


def used_image(folder: Path, options: str) -> Path:
    """Make an image that was written, discarded, snapshotted and written again, with a bitmap."""
    image = folder / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, image, "20M")
    qemu_io(image, "write -P 1 0 3M", "write -z 1M 100k", "discard 2M 512k")
    if not any(word in options for word in ("extended", "preallocation", "256k", "2M")):
        qemu_io(image, "write -c -P 7 8M 128k")
    if "refcount_bits=1" not in options.split(","):  # a snapshot's clusters have two uses
        qemu_img("snapshot", "-c", "first", image)
        qemu_io(image, "write -P 4 64k 300k")
        qemu_img("snapshot", "-c", "a second one", image)
        qemu_io(image, "write -P 9 5M 1M")
    if "0.10" not in options:
        qemu_img("bitmap", "--add", image, "changes")
        qemu_io(image, "write 0 64k")
    return image


def qemu_io(image: Path, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, image], check=True, capture_output=True)


@pytest.mark.parametrize("options", [*OPTIONS, *PREALLOCATED])
def test_an_image_with_a_history_is_clean(options: str, tmp_path: Path) -> None:
    image = used_image(tmp_path, options)
    assert found_by_qemu(image) == (False, False)
    assert found_by_us(image) == (False, False, False)


@pytest.mark.parametrize(
    "options", ["cluster_size=4k", "cluster_size=512,refcount_bits=8", "extended_l2=on"]
)
def test_a_flipped_bit_is_found_by_both_or_by_none(options: str, tmp_path: Path) -> None:
    """In refcount table, refcount block, L1 and L2 table and the list of snapshots."""
    image = used_image(tmp_path, options)
    content, rng = image.read_bytes(), random.Random(options)
    bits, _, _, l1_entries, l1, counts, _, _, snapshots = struct.unpack_from(
        ">IQIIQQIIQ", content, 20
    )
    cluster = 1 << bits
    block, table = (
        struct.unpack_from(">Q", content, at)[0] & 0x00FFFFFFFFFFFE00 for at in (counts, l1)
    )
    places = {counts: 8, block: min(cluster, 400), l1: 8 * l1_entries}
    places |= {table: min(cluster, 1200), snapshots: 60}
    seen = set()
    for number in range(40):
        changed = bytearray(content)
        place = sorted(places)[number % len(places)]
        at = place + rng.randrange(places[place])
        changed[at] ^= 1 << rng.randrange(8)
        image.write_bytes(changed)
        leaks, damage = found_by_qemu(image)
        our_leaks, our_damage, is_uncounted = found_by_us(image)
        if is_uncounted:  # reserved bits are no damage for qemu-img
            assert our_damage
        else:
            assert (our_leaks, our_damage) == (leaks, damage), hex(at)
        seen.add((leaks, damage))
    assert len(seen) > 2


def test_windows_of_the_file_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = used_image(tmp_path, "cluster_size=512")
    content = bytearray(image.read_bytes())
    (table,) = struct.unpack_from(">Q", content, 48)
    for block in (0, 3):  # of 256 clusters
        (place,) = struct.unpack_from(">Q", content, table + 8 * block)
        content[place + 100] ^= 1
        content[place + 300] ^= 2
    image.write_bytes(content)
    whole = check_path(image).findings
    assert len(whole) > 3
    for window in (100, 256, 1000):
        monkeypatch.setattr(refcounts, "WINDOW", window)
        monkeypatch.setattr(refcounts, "MAX_WINDOWS", 1000)
        assert sorted(check_path(image).findings, key=str) == sorted(whole, key=str)


# --- chains of three: the base raw or qcow2, each layer with its own cluster size


def _overlay(
    folder: Path, base: Path, base_form: str, name: str, content: bytes, options: str
) -> Path:
    """Make an overlay of `base` that holds only what differs in `content`."""
    wanted, image = folder / f"{name}.raw", folder / f"{name}.qcow2"
    wanted.write_bytes(content)
    more = ["-o", options] if options else []
    qemu_img(
        *("convert", "-f", "raw", "-O", "qcow2", "-B", base.name, "-F", base_form, *more),
        *(wanted, image),
    )
    return image


@pytest.mark.parametrize("base_form", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "options",
    ["", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "compat=0.10,cluster_size=4k"],
)
def test_chain_of_three(
    base_form: str, options: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    qemu_img("convert", "-f", "raw", "-O", base_form, disk, base)
    content = bytearray(disk.read_bytes())
    content[MiB + 100 : MiB + 5000] = pattern(4900, 3)
    content[6 * MiB : 6 * MiB + 300 * KiB] = bytes(300 * KiB)
    middle = _overlay(tmp_path, base, base_form, "middle", bytes(content), options)
    content = content[: 8 * MiB + 512] + bytes(4 * MiB)  # longer than what lies below
    content[2 * MiB : 2 * MiB + 64 * KiB] = pattern(64 * KiB, 4)
    content[10 * MiB : 10 * MiB + 512] = pattern(512, 5)
    top = _overlay(tmp_path, middle, "qcow2", "top", bytes(content), "")
    assert by_qemu(top) == bytes(content)
    root, info = ours(top)
    assert root == root_of(bytes(content))
    assert info.parent == "middle.qcow2"
    assert ours(middle)[0] == root_of(by_qemu(middle))


def test_a_longer_top_reads_zeros_behind_its_backing_file(disk: Path, tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    base = tmp_path / "base.raw"
    base.write_bytes(disk.read_bytes())
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, "12M")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "base.raw", "-F", "raw", top)
    assert ours(top)[0] == root_of(disk.read_bytes().ljust(12 * MiB, b"\0"))
    assert by_qemu(top) == disk.read_bytes().ljust(12 * MiB, b"\0")


# --- what qemu-img does to an image afterwards


def _resized(image: Path) -> None:
    qemu_img("resize", "-q", "-f", "qcow2", image, "11M")
    qemu_img("resize", "-q", "--shrink", "-f", "qcow2", image, "5M")


def _with_snapshots(image: Path) -> None:
    qemu_img("snapshot", "-c", "first", image)
    qemu_img("snapshot", "-c", "second", image)


def _with_bitmaps(image: Path) -> None:
    qemu_img("bitmap", "--add", "-f", "qcow2", image, "changes")


def _amended(image: Path) -> None:
    qemu_img("amend", "-q", "-f", "qcow2", "-o", "compat=0.10", image)


@pytest.mark.parametrize("change", [_resized, _with_snapshots, _with_bitmaps, _amended])
def test_changed_by_qemu(change: Callable[[Path], None], disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    change(image)
    root, info = ours(image)
    assert root == root_of(by_qemu(image))
    snapshots = ("the image has 2 internal snapshots: only its active state is read",)
    assert info.warnings == (snapshots if change is _with_snapshots else ())


def test_what_we_call_data_is_data_to_qemu(disk: Path, tmp_path: Path) -> None:
    """Less may be data to us: we know the holes of the file inside clusters."""
    image = tmp_path / "image.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    found = json.loads(qemu_img("map", "-f", "qcow2", "--output=json", image))
    theirs = bytearray(SIZE // 512)
    for part in found:
        if part["data"]:
            first, count = part["start"] // 512, part["length"] // 512
            theirs[first : first + count] = b"\1" * count
    with open_path(image) as opened:
        data = [extent for extent in opened.extents(0, SIZE) if extent.is_data]
    assert data
    assert all(all(theirs[extent.offset // 512 : extent.end // 512]) for extent in data)


def test_a_disk_of_64_tib_opens_and_is_listed(tmp_path: Path) -> None:
    image = tmp_path / "big.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, "64T")
    with open_path(image) as opened:
        assert opened.size == 64 * 1024 * GiB
        (hole,) = opened.extents(0, opened.size)
        assert (hole.length, hole.is_data) == (opened.size, False)


# --- judges of our builder, and a second reader


def test_the_hand_built_images_of_the_tests_are_images_to_qemu_and_dissect(tmp_path: Path) -> None:
    size = 64 * KiB
    clusters = {4: pattern(size, 4), 0: pattern(size, 0)}
    packed = {2: deflated(TEXT[:size]), 5: deflated(TEXT[size : 2 * size])}
    whole = b"".join(
        clusters.get(n) or {2: TEXT[:size], 5: TEXT[size : 2 * size]}.get(n, bytes(size))
        for n in range(7)
    )
    image = Qcow2(7 * size, clusters, packed, cluster_bits=16, entries={1: 1})
    path = image.write(tmp_path / "built.qcow2")
    assert by_qemu(path) == whole
    with path.open("rb") as file:
        assert QCow2(file).open().read(len(whole)) == whole
    assert ours(path)[0] == root_of(whole)
    assert image.entries[1] & COMPRESSED == 0


def test_the_hand_built_subclusters_are_subclusters_to_qemu(tmp_path: Path) -> None:
    size = 64 * KiB
    bitmaps = {0: 0x00FF00F1 | 0xFF00000E << 32, 3: 0xFFFFFFFF}
    clusters = {0: pattern(size), 3: pattern(size, 3)}
    image = Qcow2(4 * size, clusters, cluster_bits=16, extended=True, bitmaps=bitmaps)
    path = image.write(tmp_path / "built.qcow2")
    assert ours(path)[0] == root_of(by_qemu(path))
