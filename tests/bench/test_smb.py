"""The SMB share against smbclient, libsmbclient and smbprotocol, in one run on one server; prints ratios, asserts no
speed.

Of smbclient the whole process counts (its start and logon take some 20 ms); of our own workers, and of libsmbclient,
the transfer alone, because Python's start would count with 1 GiB and not with an image. BENCH_GIB sets the data (1),
BENCH_RUNS the runs (3). Every file that is written is a new one.
"""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imaging.units import GiB, MiB
from tests.bench.launch import launch
from tests.bench.smb_worker import READ, WRITTEN
from tests.support.samba import Rig, samba_rig

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SIZE = int(os.environ.get("BENCH_GIB", "1")) * GiB
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
PIECE = 16 * MiB
"""Of one call of a reader or writer; the share splits and gathers as it likes."""
ROUND_TRIP = 0.010
SMBC = Path("/usr/lib/python3/dist-packages/smbc")
PROTECTION = pytest.mark.parametrize(
    ("ours", "theirs"), [("off", "sign"), ("require", "encrypt")], ids=["signed", "encrypted"]
)


@dataclass(frozen=True)
class Run:
    """Seconds, CPU seconds, and the growth of the peak memory in MiB (0: not measured)."""

    wall: float
    cpu: float
    grown: float = 0.0


Contender = Callable[[], Run]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A dense file, in memory where the machine has a place for that."""
    with samba_rig(place=Path("/dev/shm") if Path("/dev/shm").is_dir() else None) as running:
        block = os.urandom(8 * MiB)
        with running.write(READ, b"").open("wb") as file:
            for _ in range(SIZE // len(block)):
                file.write(block)
        yield running


def smbclient(rig: Rig, protection: str, command: str, *, port: int | None = None) -> Contender:
    program = shutil.which("smbclient")
    if program is None:
        pytest.fail(
            "smbclient is not installed: without its peer this measures nothing (make setup)"
        )
    user = rig.server.user
    words = [
        program, "//127.0.0.1/plain", "-p", str(port or rig.server.port),
        "-U", f"{user.name}%{user.password}", f"--client-protection={protection}", "-c", command,
    ]  # fmt: skip

    def run() -> Run:
        (rig.folder / WRITTEN).unlink(missing_ok=True)
        ran = launch(*words)
        return Run(ran.wall, ran.cpu)

    return run


def worker(
    rig: Rig,
    verb: str,
    protection: str,
    *,
    connections: int = 1,
    threads: int = 1,
    size: int = SIZE,
    port: int | None = None,
) -> Contender:
    user = rig.server.user
    words = [
        sys.executable, "-m", "tests.bench.smb_worker", verb, str(port or rig.server.port),
        user.name, user.password, protection, str(connections), str(threads), str(PIECE), str(size),
    ]  # fmt: skip

    def run() -> Run:
        (rig.folder / WRITTEN).unlink(missing_ok=True)
        return _told(words)

    return run


def libsmbclient(rig: Rig, protection: str, verb: str, folder: Path) -> Contender | None:
    """Debian's own binding; None where it is not installed."""
    if not SMBC.exists():
        return None
    (folder / ".smb").mkdir(exist_ok=True)
    config = f"[global]\nclient protection = {protection}\nclient min protocol = SMB3\n"
    (folder / ".smb" / "smb.conf").write_text(config)
    user = rig.server.user
    script = Path(__file__).with_name("libsmbclient_worker.py")
    words = [
        "/usr/bin/python3", str(script), verb, str(rig.server.port), user.name, user.password,
        str(rig.folder / READ),
    ]  # fmt: skip

    def run() -> Run:
        (rig.folder / WRITTEN).unlink(missing_ok=True)
        return _told(words, HOME=str(folder))

    return run


def _told(words: list[str], **environment: str) -> Run:
    """Run a worker and take its own word."""
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return Run(*map(float, done.stdout.splitlines()[-1].split()))


def table(title: str, contenders: dict[str, Contender | None], *, size: int = SIZE) -> None:
    """Let them run in turn; print medians and ratios to the first."""
    runs: dict[str, list[Run]] = {name: [] for name, run in contenders.items() if run}
    for _ in range(RUNS):
        for name, run in contenders.items():
            if run is not None:
                runs[name].append(run())
    rates = {name: statistics.median(size / MiB / r.wall for r in rs) for name, rs in runs.items()}
    costs = {name: statistics.median(r.cpu / (size / GiB) for r in rs) for name, rs in runs.items()}
    peer = next(iter(runs))
    lines = [f"{title}, {size / GiB:g} GiB, median of {RUNS}, in turn"]
    for name, mine in runs.items():
        rate, cost = rates[name], costs[name]
        grown = statistics.median(run.grown for run in mine)
        memory = f"  +{grown:.0f} MiB" if grown else ""
        lines.append(
            f"  {name:26} {rate:6.0f} MiB/s {rate / rates[peer]:5.2f}x"
            f"  {cost:4.2f} CPU-s/GiB {cost / costs[peer]:5.2f}x{memory}"
        )
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


@PROTECTION
def test_reading(rig: Rig, ours: str, theirs: str, tmp_path: Path) -> None:
    table(
        f"SMB read, {theirs}",
        {
            "smbclient get": smbclient(rig, theirs, f"get {READ} /dev/null"),
            "1 connection, 1 thread": worker(rig, "read", ours),
            "1 connection, 4 threads": worker(rig, "read", ours, threads=4),
            "2 connections, 2 threads": worker(rig, "read", ours, connections=2, threads=2),
            "libsmbclient": libsmbclient(rig, theirs, "read", tmp_path),
        },
    )


@PROTECTION
def test_writing(rig: Rig, ours: str, theirs: str, tmp_path: Path) -> None:
    table(
        f"SMB write, {theirs}",
        {
            "smbclient put": smbclient(rig, theirs, f"put {rig.folder / READ} {WRITTEN}"),
            "1 connection, 1 thread": worker(rig, "write", ours),
            "1 connection, 2 threads": worker(rig, "write", ours, threads=2),
            "1 connection, 4 threads": worker(rig, "write", ours, threads=4),
            "libsmbclient": libsmbclient(rig, theirs, "write", tmp_path),
        },
    )


@contextmanager
def far_away(port: int) -> Iterator[int]:
    """Stand 10 ms before the server."""
    command = [sys.executable, "-m", "tests.support.delay_proxy", str(port), str(ROUND_TRIP)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


def test_a_long_way(rig: Rig) -> None:
    with far_away(rig.server.port) as port:
        table(
            f"SMB read, encrypt, round trip {ROUND_TRIP * 1000:g} ms",
            {
                "smbclient get": smbclient(rig, "encrypt", f"get {READ} /dev/null", port=port),
                "1 connection, 1 thread": worker(rig, "read", "require", port=port),
                "1 connection, 4 threads": worker(rig, "read", "require", threads=4, port=port),
            },
        )
        put = f"put {rig.folder / READ} {WRITTEN}"
        table(
            f"SMB write, encrypt, round trip {ROUND_TRIP * 1000:g} ms",
            {
                "smbclient put": smbclient(rig, "encrypt", put, port=port),
                "1 connection, 1 thread": worker(rig, "write", "require", port=port),
            },
        )


@PROTECTION
def test_random_reads(rig: Rig, ours: str, theirs: str) -> None:
    size = SIZE // 8
    table(
        f"SMB random 64 KiB reads, {theirs}",
        {
            "smbprotocol": worker(rig, "smbprotocol", ours, size=size),
            "1 connection, 1 thread": worker(rig, "random", ours, size=size),
            "1 connection, 8 threads": worker(rig, "random", ours, threads=8, size=size),
        },
        size=size,
    )
