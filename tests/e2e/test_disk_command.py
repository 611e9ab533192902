"""`imageport disk` as a process: one disk in four formats, answers on stdout, the rest on stderr, exit codes."""

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from tests.support.disks import MiB, Vhdx, fixed_vhd, pattern
from tests.support.qcow2_images import Qcow2, deflated

pytestmark = pytest.mark.e2e

DISK = pattern(MiB) + bytes(MiB) + pattern(MiB, 2)
CLUSTER = 64 * 1024


def disk(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [*imageport("disk"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """The same disk as raw, VHD, VHDX and as a qcow2 over a raw backing file."""
    made = {form: tmp_path / f"disk.{form}" for form in ("raw", "vhd", "vhdx", "qcow2")}
    made["raw"].write_bytes(DISK)
    made["vhd"].write_bytes(fixed_vhd(DISK))
    Vhdx(3 * MiB, {0: DISK[:MiB], 2: DISK[2 * MiB :]}).write(made["vhdx"])
    (tmp_path / "base.raw").write_bytes(DISK[:MiB] + b"old".ljust(CLUSTER, b"?"))
    clusters = {n: DISK[n * CLUSTER :][:CLUSTER] for n in range(32, 47)}
    image = Qcow2(3 * MiB, clusters, {47: deflated(DISK[-CLUSTER:])}, cluster_bits=16)
    image.entries, image.backing, image.backing_format = {16: 1}, b"base.raw", b"raw"
    image.write(made["qcow2"])
    return made


def test_one_disk_is_equal_in_all_formats(images: dict[str, Path]) -> None:
    for path in images.values():
        assert disk("compare", images["raw"], path, "--strict") == (0, "equal\n", "")


def test_a_changed_backing_file_shows_in_the_comparison(
    images: dict[str, Path], tmp_path: Path
) -> None:
    with (tmp_path / "base.raw").open("r+b") as file:
        file.seek(12345)
        file.write(b"\0changed")
    code, out, err = disk("compare", images["qcow2"], images["vhdx"], "--json")
    found = json.loads(out)
    assert (code, found["equal"], err) == (1, False, "")
    first = next(i for i in range(12345, 12400) if DISK[i] != b"\0changed"[i - 12345])
    assert found["first_difference"] == first


def test_a_map_describes_what_a_copy_would_read(images: dict[str, Path]) -> None:
    code, out, _ = disk("map", images["qcow2"], "--json")
    kinds = [(e["offset"], e["length"], e["kind"]) for e in json.loads(out)["extents"]]
    assert code == 0
    assert kinds[0] == (0, MiB, "data")
    assert kinds[1] == (MiB, CLUSTER, "zero")
    assert kinds[-1] == (2 * MiB, MiB, "data")


def test_progress_is_drawn_on_a_terminal_and_wiped(images: dict[str, Path]) -> None:
    """On a terminal the line about the work is wiped at the end: what stays is the answer, on stdout."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*imageport("disk"), "compare", str(images["raw"]), str(images["vhd"])],
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, b"equal\n")
        assert os.read(ours, 65536).endswith(b"\r\x1b[K")
    finally:
        os.close(ours)
        os.close(theirs)
