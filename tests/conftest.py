"""House rules of every test run: tools on PATH, Hypothesis profiles, and no silent skip under `.ci/run`.

Fixtures do not live here but in the test file or in tests/support/, so that each test names what it uses.
"""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_ROOT = Path(__file__).resolve().parent.parent
_TOOL_FOLDERS = (_ROOT / ".cache" / "bin", Path(sys.executable).parent)
"""Azurite, azcopy and node (`make setup`), and the `imageport` command, for runs by hand too."""

os.environ["PATH"] = os.pathsep.join([*map(str, _TOOL_FOLDERS), os.environ.get("PATH", "")])

# Deadlines would assert seconds. The gate repeats itself exactly; `make soak` looks for new cases.
settings.register_profile(
    "gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("IMAGEPORT_HYPOTHESIS", "gate"))

_SKIP_IS_FAILURE = os.environ.get("IMAGEPORT_CI") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under `.ci/run`, a test that skips itself has failed: its tool is part of the gate."""
    report = yield
    if _SKIP_IS_FAILURE and report.skipped and not hasattr(report, "wasxfail"):
        _turn_red(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself as a whole (importorskip)."""
    report = yield
    if _SKIP_IS_FAILURE and report.skipped:
        _turn_red(report)
    return report


def _turn_red(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped where a skip is a failure: {report.nodeid}: {reason}"
