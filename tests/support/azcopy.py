"""azcopy, Microsoft's own uploader, run on one file with its logs and plans kept inside the test's directory."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN_SECONDS = 100.0


def azcopy_upload(source: Path, url: str, work: Path, **environment: str) -> str:
    """Upload a file as a page blob; return what azcopy printed.

    Args:
        source: A fixed VHD; azcopy takes no other page blob.
        url: With its SAS.
        work: Where azcopy may write.
        environment: More variables (HTTP_PROXY).

    Raises:
        AssertionError: azcopy failed; with its output.
    """
    program = shutil.which("azcopy")
    if program is None:
        pytest.skip("azcopy is not installed (make setup)")
    arguments = ["copy", str(source), url, "--from-to", "LocalBlob", "--blob-type", "PageBlob"]
    kept = {
        "AZCOPY_LOG_LOCATION": str(work / "log"),
        "AZCOPY_JOB_PLAN_LOCATION": str(work / "plan"),
    }
    done = subprocess.run(
        [program, *arguments, "--skip-version-check"],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        env=os.environ | kept | environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Final Job Status: Completed" in done.stdout
    return done.stdout
