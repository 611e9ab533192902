"""The fuzz campaign itself: `make soak`, an hour of CPU by default, shared by all cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_CPU_SECONDS = float(os.environ.get("IMAGEPORT_FUZZ_CPU", "3600"))


@pytest.mark.soak
@pytest.mark.timeout(_CPU_SECONDS * 3 + 600)
def test_a_campaign_finds_nothing(tmp_path: Path) -> None:
    parts = len(os.sched_getaffinity(0))
    reports = [tmp_path / f"{part}.json" for part in range(parts)]
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fuzz", "--part", f"{part}/{parts}"),
                *("--cpu", str(_CPU_SECONDS / parts), "--report", str(report)),
            ],
            cwd=_ROOT,
        )
        for part, report in enumerate(reports)
    ]
    for worker in workers:
        worker.wait()
    findings = [json.loads(report.read_text())["findings"] for report in reports]
    assert not any(findings), findings
