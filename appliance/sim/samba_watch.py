"""The watcher of a private Samba server: a script of its own that removes what the server leaves when its owner is
killed before it could clean up. Imports nothing of imageport, so that it runs by its path alone.

It reads lines on stdin: `session N` (the session id of the running smbd, 0 for none), `user NAME`, `folder PATH`,
`done`. At the end of its input it removes everything it was told of, unless the last word was `done`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

LIMIT = 5.0
"""Seconds that killed processes get to disappear."""

_POLL = 0.02


def session_members(session: int) -> list[int]:
    """Return the live processes of one session (proc(5), stat: states and field 6); zombies are not live."""
    return [pid for pid, owner, state in _processes() if owner == session and state != "Z"]


def kill_session(session: int) -> bool:
    """Kill every process of a session and wait until they are gone; False if some outlive that."""
    deadline = time.monotonic() + LIMIT
    while pids := session_members(session):
        signal_all(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes that may have gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def remove_user(name: str) -> None:
    """Remove a Unix user, though a zombie of smbd may still bear its id; one that is gone is no error."""
    tool = shutil.which("userdel") or "/usr/sbin/userdel"
    subprocess.run([tool, "-f", name], capture_output=True, check=False)  # noqa: S603 - our own name


def watch(lines: Iterable[str]) -> None:
    """Take notes until the owner ends, then clean up after it."""
    session, users, folders = 0, [], []
    for line in lines:
        word, _, value = line.rstrip("\n").partition(" ")
        match word:
            case "session":
                session = int(value)
            case "user":
                users.append(value)
            case "folder":
                folders.append(value)
            case "done":
                return
    if session:
        kill_session(session)
    for user in users:
        remove_user(user)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, session, state) of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(folder.name), int(fields[3]), fields[0]


if __name__ == "__main__":
    watch(sys.stdin)
