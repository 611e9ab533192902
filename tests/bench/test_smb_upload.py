"""The whole upload stage from an SMB share (VHDX in, fixed VHD out, digest on) against each of its ends alone.

The ends: reading the same file from the share with the same number of threads, and uploading it from a local folder,
both as processes of their own, in turn, in one run. Prints ratios, asserts no speed. BENCH_GIB sets the data (2).
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.units import GiB, MiB
from tests.bench.smb_worker import READ
from tests.support.samba import Rig, samba_rig

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SIZE = int(os.environ.get("BENCH_GIB", "2")) * GiB
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
DISK = "image.vhdx"
KEY = "aW1hZ2Vwb3J0LWJlbmNo"


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A dense disk as VHDX, and the file itself under the name that the reader knows."""
    with samba_rig(place=Path("/dev/shm") if Path("/dev/shm").is_dir() else None) as running:
        raw = running.folder / "image.img"
        with raw.open("wb") as file:
            for _ in range(SIZE // (8 * MiB)):
                file.write(os.urandom(8 * MiB))
        made = running.folder / DISK
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "vhdx", str(raw), str(made)]
        subprocess.run(convert, check=True)
        raw.unlink()
        made.chmod(0o666)
        os.link(made, running.folder / READ)
        yield running


@pytest.fixture
def sink() -> Iterator[int]:
    """A service that takes everything."""
    command = [sys.executable, "-m", "tests.bench.page_sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_the_upload_stage_against_its_ends(rig: Rig, sink: int, tmp_path: Path) -> None:
    user, port = rig.server.user, str(rig.server.port)
    account = f"{port}:{user.name}:{user.password}"

    def upload(name: str, **environment: str) -> float:
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.bench.upload_worker", str(rig.folder), DISK,
                f"http://127.0.0.1:{sink}/bench", KEY, str(tmp_path / name),
            ],
            env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"]["transfer"])

    def read() -> float:
        words = [
            sys.executable, "-m", "tests.bench.smb_worker", "read", port, user.name,
            user.password, "require", "2", "4", str(4 * MiB), "0",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1].split()[0])

    seconds: dict[str, list[float]] = {"share alone": [], "target alone": [], "share to target": []}
    for number in range(RUNS):
        seconds["share alone"].append(read())
        seconds["target alone"].append(upload(f"local-{number}"))
        seconds["share to target"].append(upload(f"smb-{number}", BENCH_SMB=account))
    rates = {name: SIZE / MiB / statistics.median(found) for name, found in seconds.items()}
    slower = min(rates["share alone"], rates["target alone"])
    lines = [f"upload stage from an encrypted share, VHDX of {SIZE / GiB:g} GiB, median of {RUNS}"]
    lines += [
        f"  {name:16} {rate:6.0f} MiB/s {rate / slower:5.2f}x" for name, rate in rates.items()
    ]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
