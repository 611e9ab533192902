"""Uploading a fixed VHD: imageport against azcopy, on one sink, in turn; prints medians and ratios, asserts no speed.

Both are whole processes (start-up included; CPU = user + system; RSS = peak). azcopy ends on 2 s ticks, so beside the
wall time of the process stands the time from its start to the last page that the sink got. azcopy runs unpaced
(AZCOPY_PACE_PAGE_BLOBS=false): its default pacing starts at 4 Gbit/s and would flatter us. imageport runs with journal
and digest; azcopy has neither. The second pair, which is no goal, is what people run who want the service to check
something: our default (a CRC-64 with every write) against azcopy --put-md5.
BENCH_GIB sets the data (8; it must fit the page cache), BENCH_RUNS the runs (3).
"""

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from imaging.formats.vhd.layout import build_fixed_footer
from imaging.units import GiB, MiB
from tests.bench.launch import launch
from tests.support.simazure import running_azure

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

DATA = int(os.environ.get("BENCH_GIB", "8")) * GiB
"""Bytes of data of both files: the sparse one is four times as long."""
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
FILE = "image.vhd"
KEY = "aW1hZ2Vwb3J0LWJlbmNo"
PAIRS = (("imageport", "azcopy"), ("+ crc64", "+ md5"))
SAS = "sv=2021-12-02&sr=c&sp=rw&se=2036-01-01T00%3A00%3A00Z&sig=bench"


@dataclass
class Run:
    """One finished run: seconds, CPU seconds a GiB of the file, MiB."""

    wall: float
    to_last_page: float
    cpu: float
    rss: float
    sent: int


@pytest.fixture
def sink() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.page_sink"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.communicate()


def make_vhd(path: Path, size: int, *, data: float) -> None:
    """Write a fixed VHD of which the share `data` is random, in pieces of 8 MiB; the rest is holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for piece in range(0, size, 8 * MiB):
            if (piece // (8 * MiB)) % 4 < data * 4:
                file.seek(piece)
                file.write(os.urandom(8 * MiB))
        file.seek(size)
        file.write(build_fixed_footer(size, unique_id=bytes(16), timestamp=0))


def report(port: int) -> dict[str, float]:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/report")
        return json.loads(connection.getresponse().read())


def measured(port: int, size: int, command: list[str], environment: dict[str, str]) -> Run:
    report(port)
    ran = launch(*command, environment=environment)
    got = report(port)
    to_last_page = got["last"] - ran.started
    return Run(ran.wall, to_last_page, ran.cpu / (size / GiB), ran.rss, int(got["bytes"]))


def imageport(port: int, size: int, folder: Path, name: str, *options: str) -> Run:
    endpoint = f"http://127.0.0.1:{port}/bench"
    state = str(folder / f"state-{name}")
    command = [
        sys.executable,
        "-m",
        "tests.bench.upload_worker",
        str(folder),
        FILE,
        endpoint,
        KEY,
        state,
    ]
    return measured(port, size, [*command, *options], {})


def azcopy(port: int, size: int, folder: Path, name: str, *options: str) -> Run:
    program = shutil.which("azcopy")
    if program is None:
        pytest.fail("azcopy is not installed: without its peer this measures nothing (make setup)")
    url = f"http://127.0.0.1:{port}/bench/vhds/azcopy-{name}.vhd?{SAS}"
    command = [
        program,
        "copy",
        str(folder / FILE),
        url,
        "--from-to",
        "LocalBlob",
        "--blob-type",
        "PageBlob",
        *options,
    ]
    environment = {
        "AZCOPY_PACE_PAGE_BLOBS": "false",
        "AZCOPY_LOG_LOCATION": str(folder / "azcopy-log"),
        "AZCOPY_JOB_PLAN_LOCATION": str(folder / "azcopy-plan"),
    }
    return measured(
        port, size, [*command, "--skip-version-check", "--log-level", "ERROR"], environment
    )


def median(runs: list[Run], field: str) -> float:
    return statistics.median(getattr(run, field) for run in runs)


@pytest.mark.parametrize(
    ("name", "data"), [("dense", 1.0), ("25 % data", 0.25)], ids=["dense", "sparse"]
)
def test_upload_against_azcopy(tmp_path: Path, sink: int, name: str, data: float) -> None:
    size = int(DATA / data)
    make_vhd(tmp_path / FILE, size, data=data)
    runs: dict[str, list[Run]] = {"imageport": [], "azcopy": [], "+ crc64": [], "+ md5": []}
    for number in range(RUNS):
        runs["imageport"].append(imageport(sink, size, tmp_path, f"plain-{number}"))
        runs["azcopy"].append(azcopy(sink, size, tmp_path, f"plain-{number}"))
        runs["+ crc64"].append(imageport(sink, size, tmp_path, f"crc64-{number}", "crc64"))
        runs["+ md5"].append(azcopy(sink, size, tmp_path, f"md5-{number}", "--put-md5"))
    assert all(run.sent >= DATA for column in runs.values() for run in column)
    assert all(run.sent < DATA + 64 * MiB for run in runs["imageport"] + runs["+ crc64"])
    sys.stdout.write(
        f"\nupload of a fixed VHD of {size / GiB:.0f} GiB, {name}; median of {RUNS}, in turn, one sink\n"
    )
    sys.stdout.write(f"{'':14}" + "".join(f"{a:>12}{b:>12}{'ratio':>8}" for a, b in PAIRS) + "\n")
    for field, label in (
        ("wall", "wall s"),
        ("to_last_page", "to last page s"),
        ("cpu", "CPU s/GiB"),
        ("rss", "peak RSS MiB"),
    ):
        sys.stdout.write(f"{label:14}")
        for ours, theirs in PAIRS:
            mine, peer = median(runs[ours], field), median(runs[theirs], field)
            sys.stdout.write(f"{mine:12.2f}{peer:12.2f}{mine / peer:8.2f}")
        sys.stdout.write("\n")
    (tmp_path / FILE).unlink()  # the next one's data would push these out of the page cache


def test_reading_back(tmp_path: Path) -> None:
    """The verification on its own line: what reading everything back costs beside sending it, on the simulator."""
    size = min(DATA, 1 * GiB)
    with (tmp_path / "image.vhd").open("wb") as file:
        for _ in range(size // (8 * MiB)):
            file.write(os.urandom(8 * MiB))
        file.write(build_fixed_footer(size, unique_id=bytes(16), timestamp=0))
    with running_azure(state_dir=tmp_path / "azure") as sim:
        sim.make_container("vhds")
        command = [
            sys.executable,
            "-m",
            "tests.bench.upload_worker",
            str(tmp_path),
            "image.vhd",
            sim.blob_url,
        ]
        done = subprocess.run(
            [*command, sim.key, str(tmp_path / "state")],
            env=os.environ | {"BENCH_VERIFY": "full"},
            capture_output=True,
            text=True,
            check=True,
        )
    seconds = json.loads(done.stdout)["seconds"]
    verify, transfer = seconds["verify"], seconds["transfer"]
    sys.stdout.write(
        f"\nread-back of {size / GiB:.0f} GiB from `sim azure`: {verify:.1f} s, sending {transfer:.1f} s\n"
    )
