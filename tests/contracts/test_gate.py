"""The gate's own contract: under `.ci/run` a skipped test is a failed one, by hand it is only named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]

_SKIPS_ITSELF = """
import pytest

def test_needs_a_tool():
    pytest.skip("no such tool")
"""
_SKIPS_AS_A_FILE = """
import pytest
pytest.importorskip("no_such_module_anywhere")
"""
_EXPECTED_TO_FAIL = """
import pytest

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""


def _run(source: str, folder: Path, *, ci: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_inner.py"
    path.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(folder), str(path)],
        cwd=_ROOT,
        env={**os.environ, "IMAGEPORT_CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("source", [_SKIPS_ITSELF, _SKIPS_AS_A_FILE], ids=["test", "file"])
def test_skip_turns_the_gate_red_and_names_the_test(source: str, tmp_path: Path) -> None:
    run = _run(source, tmp_path, ci="1")
    assert run.returncode != 0
    assert "skipped where a skip is a failure: test_inner.py" in run.stdout


@pytest.mark.parametrize("source", [_SKIPS_ITSELF, _SKIPS_AS_A_FILE], ids=["test", "file"])
def test_skip_by_hand_stays_a_skip(source: str, tmp_path: Path) -> None:
    run = _run(source, tmp_path, ci="")
    assert "1 skipped" in run.stdout


def test_expected_failure_is_no_skip(tmp_path: Path) -> None:
    run = _run(_EXPECTED_TO_FAIL, tmp_path, ci="1")
    assert run.returncode == 0
    assert "1 xfailed" in run.stdout
