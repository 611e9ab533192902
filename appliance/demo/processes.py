"""Child processes of the demo: started as a user would start them, watched, ended in reverse order."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

POLL_S = 0.05
STOP_S = 15.0
TAIL_BYTES = 2000


class DemoFailed(Exception):
    """A part of the demo did not do its work."""

    code: ClassVar[str] = "demo.failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = "Run `imageport demo --keep DIR` and look at the logs in DIR/logs."

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


def imageport(*arguments: str | Path) -> list[str]:
    """Return the command line of this very installation's `imageport`."""
    return [sys.executable, "-m", "appliance.cli.main", *map(str, arguments)]


@dataclass
class Process:
    """One running child and its log file."""

    name: str
    child: "subprocess.Popen[bytes]"
    log: Path

    def tail(self) -> str:
        """Return the end of what it printed."""
        return self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").strip()


@dataclass
class Processes:
    """The children of one demo.

    Attributes:
        logs: Folder of their logs.
    """

    logs: Path
    running: list[Process] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str]) -> Process:
        """Start a child; it ends with `stop_all`."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(  # noqa: S603 - our own command line
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        process = Process(name, child, log)
        self.running.append(process)
        return process

    def wait_until(self, what: str, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready` answers true; every child has to stay alive meanwhile.

        Raises:
            DemoFailed: A child ended, or the time is over; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {p.name}\n{p.tail()}" for p in self.running)
                raise DemoFailed(f"waited {seconds:.0f} s for {what}\n{tails}")
            time.sleep(POLL_S)

    def check_alive(self) -> None:
        """Raise DemoFailed if a child ended by itself."""
        for process in self.running:
            code = process.child.poll()
            if code is not None:
                raise DemoFailed(f"{process.name} ended with code {code}:\n{process.tail()}")

    def stop_all(self) -> None:
        """End all children, the last one first; kill what does not end."""
        for process in reversed(self.running):
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGTERM)
        for process in reversed(self.running):
            try:
                process.child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.child.kill()
                process.child.wait()
        self.running.clear()


def run(command: Sequence[str], *, given: bytes | None = None, seconds: float = 60.0) -> bytes:
    """Run a command to its end and return its stdout.

    Raises:
        DemoFailed: It failed or took too long; with what it said.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            command, input=given, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise DemoFailed(f"{' '.join(command[2:])} took more than {seconds:.0f} s") from err
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise DemoFailed(f"{' '.join(command[2:])} ended with code {done.returncode}:\n{said}")
    return done.stdout
