"""The quickstart's local job, as the page writes it, through the real processes and commands."""

import random
import re
import subprocess
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from imaging.units import MiB
from tests.support.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

PAGE = Path(__file__).parents[2] / "docs/quickstart.md"


def local_job() -> str:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = [str(text) for text in blocks if 'path = "golden.raw"' in text]
    return found


def test_the_local_job_arrives_bit_by_bit(tmp_path: Path) -> None:
    image = random.Random(3).randbytes(2 * MiB)
    with Stack(tmp_path) as stack:
        (stack.share / "golden.raw").write_bytes(image)
        spec = stack.folder / "job.toml"
        spec.write_text(local_job())
        stack.start_all()
        command = imageport(
            "image", "upload", "--client", stack.keys / "client.toml", "--spec", spec, "--watch"
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "succeeded" in done.stdout
        assert (stack.cloud / "golden.raw").read_bytes() == image
