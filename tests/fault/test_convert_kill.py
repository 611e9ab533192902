"""A conversion that ends in the middle of its writes: kill -9 leaves a partial file, Ctrl-C and a full disk nothing.

With --resume it goes on, however often it is killed.
"""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.disks import MiB, pattern, root_of

pytestmark = pytest.mark.fault

SLOW = r"""
import os, sys, time
from appliance.cli.main import main
from imaging.newfile import NewFile

written = NewFile.write

def write(self, offset, data):
    os.write(1, b"writing\n")
    time.sleep(0.2)
    written(self, offset, data)

NewFile.write = write
sys.exit(main(sys.argv[1:]))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("to", ["vhdx", "vmdk:streamOptimized", "vmdk:monolithicSparse", "targz"])
@pytest.mark.parametrize(
    ("number", "code", "left"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ["disk.raw", "image.partial"]),
        (signal.SIGINT, 130, ["disk.raw"]),
    ],
)
def test_a_conversion_that_is_ended(
    number: signal.Signals, code: int, left: list[str], to: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "disk.raw", tmp_path / "image"
    source.write_bytes(pattern(60 * MiB))
    words = ["disk", "convert", str(source), str(target), "--to", to]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *words], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(60) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    again = [sys.executable, "-m", "appliance.cli.main", *words]
    subprocess.run(again, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("disk.raw", "image", "image.digest")
    ]


LIMITED = r"""
import resource, sys
from appliance.cli.main import main

resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("to", ["vhdx", "vmdk:streamOptimized", "vmdk:monolithicSparse", "targz"])
def test_a_file_that_cannot_grow_is_named_and_nothing_is_left(to: str, tmp_path: Path) -> None:
    source, target = tmp_path / "disk.raw", tmp_path / "image"
    source.write_bytes(random.Random(1).randbytes(8 * MiB))
    words = ["disk", "convert", str(source), str(target), "--to", to, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], cwd=ROOT, capture_output=True, check=False
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (73, "imaging.full")
    assert "image.partial" in answer["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


MORTAL = r"""
import os, sys
from appliance.cli.main import main
from imaging.convert import resume
from imaging.convert.checkpoints import Interval
from imaging.newfile import NewFile

resume.begin.__wrapped__.__kwdefaults__["interval"] = Interval(1, 0)
left = int(sys.argv[1])

def mortal(function):
    def counted(*arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return function(*arguments)
    return counted

for name in ("pwrite", "fsync", "ftruncate"):
    setattr(os, name, mortal(getattr(os, name)))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("to", ["raw", "vhd:dynamic", "vhdx:dynamic", "vmdk:monolithicSparse"])
def test_a_resumed_conversion_survives_any_number_of_kills(to: str, tmp_path: Path) -> None:
    """Killed at a random operation each time, ids and time from the first run: still the same disk, read piecewise."""
    chance = random.Random(to)
    source, target = tmp_path / "disk.raw", tmp_path / "image"
    content = pattern(7 * MiB) + bytes(4 * MiB) + pattern(5 * MiB, 2)
    source.write_bytes(content)
    words = ["disk", "convert", str(source), str(target), "--to", to, "--resume", "--json"]
    kills, resumed = 0, 0
    while not target.exists():
        left = chance.randrange(12, 40)
        done = subprocess.run(
            [sys.executable, "-c", MORTAL, str(left), *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        kills += done.returncode == -signal.SIGKILL
        resumed += "goes on with" in done.stderr
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        assert kills < 60
    assert kills > 1
    assert resumed > 0
    check = ["disk", "digest", str(target), "--format", to.partition(":")[0]]
    found = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *check],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == root_of(content) + "\n"
