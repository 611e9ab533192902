"""What opening costs, however large the disk: `imageport disk info` against `qemu-img info`; asserts no time.

64 TiB of VHDX in blocks of 1 MiB, with nothing in it and with every block present (512 MiB of BAT). Goals: opening
< 50 ms and < 32 MiB; `import imaging` < 100 ms.
"""

import json
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from imaging.units import MiB, TiB
from tests.bench.launch import launch
from tests.support.disks import Vhdx, needs_qemu_img

pytestmark = [pytest.mark.bench, needs_qemu_img]

SIZE = 64 * TiB
MEMORY = Path("/dev/shm")
RUNS = int(os.environ.get("BENCH_RUNS", "5"))

IMPORT = """
import json, resource, sys, time
began = time.perf_counter()
import imaging, imaging.formats
print(json.dumps((time.perf_counter() - began) * 1e3))
"""

OPEN = """
import json, sys, time
from imaging.formats import open_path
import imaging.formats.vhdx.device

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
began = time.perf_counter()
with open_path(sys.argv[1]) as image:
    opened = time.perf_counter()
    image.read_into(image.size // 2, memoryview(bytearray(512)))
    read = time.perf_counter()
print(json.dumps([(opened - began) * 1e3, (read - opened) * 1e3, (peak() - before) / 1024]))
"""


def run(script: str, *arguments: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file system takes a sparse file of 64 TiB."""
    path = MEMORY / f"open-{os.getpid()}" if MEMORY.is_dir() else tmp_path
    path.mkdir(exist_ok=True)
    yield path
    shutil.rmtree(path)


def write_vhdx(path: Path, *, full: bool) -> None:
    """Write a VHDX whose blocks are all absent, or all present and holes of the file."""
    image = Vhdx(SIZE)
    _, parts = image.layout()
    blocks = SIZE // MiB if full else 0
    with path.open("wb") as file:
        file.truncate(image.data_offset + blocks * MiB)
        for offset, content in parts.items():
            file.seek(offset)
            file.write(content)
        for first in range(0, blocks, image.ratio):
            place = image.data_offset + first * MiB
            entries = array("Q", range(place | 6, (place + image.ratio * MiB) | 6, MiB))
            file.seek(image.entry_offset(first))
            file.write(entries.tobytes())


@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
def test_open_64_tib(folder: Path, full: bool) -> None:
    path = folder / "image.vhdx"
    write_vhdx(path, full=full)
    opened, read, grown = min(run(OPEN, path) for _ in range(RUNS))
    qemu = min((launch("qemu-img", "info", path) for _ in range(2)), key=lambda each: each.wall)
    command = [sys.executable, "-m", "appliance.cli.main", "disk", "info", path]
    ours = min((launch(*command) for _ in range(2)), key=lambda each: each.wall)
    sys.stdout.write(
        f"\n64 TiB VHDX, {'full' if full else 'empty'}: open {opened:.1f} ms, first read {read:.1f} ms,"
        f" RSS +{grown:.1f} MiB; `disk info` {ours.wall:.2f} s, {ours.rss:.0f} MiB;"
        f" `qemu-img info` {qemu.wall:.2f} s, {qemu.rss:.0f} MiB; ratio {ours.wall / qemu.wall:.2f}\n"
    )


def test_import() -> None:
    taken = min(run(IMPORT)[0] for _ in range(RUNS))
    sys.stdout.write(f"\nimport imaging, imaging.formats: {taken:.0f} ms\n")
