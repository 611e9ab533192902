"""EBS blocks: imageport, boto3 in threads, aiobotocore; one sink, in turn; prints medians and ratios, no assertions.

All are whole processes and hash every block with SHA-256. Blocks a second are those between the first and the last
that the sink got; CPU is user + system of the process, a GiB. BENCH_GIB sets the data (2), BENCH_RUNS the runs (3);
BENCH_AIO_PYTHON is an interpreter that has aiobotocore.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imaging.units import GiB, MiB
from tests.bench.launch import launch

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

DATA = int(os.environ.get("BENCH_GIB", "2")) * GiB
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
AIO_PYTHON = os.environ.get("BENCH_AIO_PYTHON", "")
PEERS = ("boto3", "aiobotocore") if AIO_PYTHON else ("boto3",)


@pytest.fixture
def sink() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.ebs_sink"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.communicate()


def report(port: int) -> dict[str, float]:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/report")
        return json.loads(connection.getresponse().read())


@pytest.mark.parametrize("inflight", [16, 64])
def test_blocks(
    sink: int, inflight: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "golden.raw").open("wb") as file:
        for _ in range(DATA // (8 * MiB)):
            file.write(os.urandom(8 * MiB))
    rows: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in ("ours", *PEERS)}
    for number in range(RUNS):
        for mode, row in rows.items():
            state = tmp_path / f"state-{mode}-{number}"
            state.mkdir()
            done = launch(
                AIO_PYTHON if mode == "aiobotocore" else sys.executable,
                "-m", "tests.bench.ebs_worker", mode, tmp_path, "golden.raw",
                f"http://127.0.0.1:{sink}", state, str(inflight),
            )  # fmt: skip
            seen = report(sink)
            assert seen["bytes"] == DATA
            rate = seen["puts"] / (seen["last"] - seen["first"])
            row.append((rate, done.cpu / (DATA / GiB), done.rss))
    with capsys.disabled():
        medians = {
            mode: [statistics.median(column) for column in zip(*row, strict=True)]
            for mode, row in rows.items()
        }
        for mode, (rate, cpu, rss) in medians.items():
            sys.stdout.write(
                f"\n{inflight:3} in flight {mode:11} {rate:7.0f} blocks/s {cpu:5.2f} CPU-s/GiB {rss:5.0f} MiB"
            )
        for peer in PEERS:
            ratio = medians["ours"][0] / medians[peer][0]
            sys.stdout.write(f"\n{inflight:3} in flight ratio {ratio:6.2f} x {peer} (goal 2.0)")
        sys.stdout.write("\n")
