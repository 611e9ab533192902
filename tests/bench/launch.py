"""Whole processes, measured. Between us and them stands a small one: a process begins with its parent's peak memory."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = """
import os, sys, time
started = time.monotonic()
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - started
print(started, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Launched:
    """One process, or several one after another.

    Attributes:
        started: By this machine's monotonic clock.
        wall / cpu: Seconds; CPU is user + system.
        rss: Peak, in MiB.
    """

    started: float
    wall: float
    cpu: float
    rss: float

    def __add__(self, other: "Launched") -> "Launched":
        return Launched(
            self.started, self.wall + other.wall, self.cpu + other.cpu, max(self.rss, other.rss)
        )


def launch(
    *command: str | Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Launched:
    """Run a program to its end, which must be a success; its output is dropped, its errors are shown if it fails."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, command)],
        env=os.environ | (environment or {}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Launched(*map(float, done.stdout.split()[-4:]))
