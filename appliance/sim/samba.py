"""A private, real Samba server for the demo, for rehearsals and for tests: own directory, own port on loopback,
throw-away users. Not a simulator (smbd itself answers) and never the system's own Samba, which it does not touch.

Needs root (smbd maps every session to a Unix user, so users are made with useradd and removed again) and Debian's
`samba` package. All smbd processes of one server share the session id of the first, which is how they are found.
A watcher (samba_watch.py) cleans up if the owner is killed.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from appliance.sim import samba_watch

TOOLS = ("smbd", "smbpasswd", "useradd", "userdel")
GECOS = "imageport-sim"
"""Comment of our users in /etc/passwd."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0
_POLL = 0.02
_START_ATTEMPTS = 3

_GLOBAL = """\
[global]
  server role = standalone server
  workgroup = IMAGEPORT
  interfaces = lo
  bind interfaces only = yes
  smb ports = {port}
  disable netbios = yes
  disable spoolss = yes
  load printers = no
  printcap name = /dev/null
  private dir = {state}/private
  lock directory = {state}/lock
  state directory = {state}/state
  cache directory = {state}/cache
  pid directory = {state}/pid
  ncalrpc dir = {state}/ncalrpc
  log file = {state}/log/%m.log
  log level = 1
  passdb backend = tdbsam:{state}/private/passdb.tdb
  map to guest = never
  restrict anonymous = 2
  ntlm auth = ntlmv2-only
  server min protocol = SMB3_00
  server signing = mandatory
  kernel oplocks = no
  kernel share modes = no
  posix locking = no
  store dos attributes = yes
"""


class SambaUnavailable(Exception):
    """A private Samba server cannot be had on this machine."""

    code: ClassVar[str] = "sim.samba-unavailable"
    exit_code: ClassVar[int] = 69
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = False
    fix: ClassVar[str] = (
        "Run as root on a machine with Debian's samba package (apt-get install samba)."
    )


@dataclass(frozen=True, slots=True)
class SambaUser:
    """A throw-away account."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SambaShare:
    """One share of the server.

    The throw-away users must be able to reach the folder, or the options say `{"force user": "root"}`.

    Attributes:
        name: Name on the wire.
        folder: What it serves.
        options: Further smb.conf keys of the share; `{0}` in a value is the first account's name.
    """

    name: str
    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)


def why_unavailable() -> str | None:
    """Say why no private Samba can run here; None if it can."""
    if os.geteuid() != 0:
        return "a private Samba server needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Samba:
    """One server. Use as a context manager; leaving it removes its processes and users, not the shared folders.

    Attributes:
        port: TCP port on 127.0.0.1, the same for the whole life.
        users: Its accounts; the first is made if none is asked for.
    """

    def __init__(
        self,
        state: Path,
        shares: Sequence[SambaShare],
        *,
        users: int = 1,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            state: Private directory of the server; made if missing, removed at the end.
            shares: What it serves.
            users: How many accounts it gets.
            options: Further keys for the [global] section.
        """
        self.port = 0
        self.users: list[SambaUser] = []
        self._state = state
        self._shares = list(shares)
        self._user_count = users
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[str] | None = None

    @property
    def user(self) -> SambaUser:
        """The first account."""
        return self.users[0]

    def __enter__(self) -> Self:
        reason = why_unavailable()
        if reason:
            raise SambaUnavailable(reason)
        try:
            self._start_watcher()
            self._make_folders()
            self.port = _free_port()
            self._write_config()
            for _ in range(self._user_count):
                self._add_user()
            self._first_start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        while self.users:
            samba_watch.remove_user(self.users.pop().name)
        shutil.rmtree(self._state, ignore_errors=True)
        self._tell("done")
        if self._watcher is not None:
            self._watcher.communicate()
            self._watcher = None

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start smbd on the port and return when it accepts connections."""
        smbd = shutil.which("smbd") or "smbd"
        self._process = subprocess.Popen(  # noqa: S603 - fixed arguments
            [smbd, "-s", str(self._config), "-F", "--no-process-group"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._tell(f"session {self._process.pid}")
        deadline = time.monotonic() + START_TIMEOUT
        while not _accepts(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise SambaUnavailable(f"smbd did not start on port {self.port}")
            time.sleep(_POLL)

    def stop(self) -> None:
        """Ask it to end, and insist."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """End every process of this server with SIGKILL, as a power cut would, and wait until they are gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_TIMEOUT)
            samba_watch.kill_session(process.pid)
            self._tell("session 0")

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop every process: connections are accepted by the kernel and nobody answers."""
        samba_watch.signal_all(self._pids(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the processes run again."""
        samba_watch.signal_all(self._pids(), signal.SIGCONT)

    def _pids(self) -> list[int]:
        return samba_watch.session_members(self._process.pid) if self._process else []

    def _start_watcher(self) -> None:
        """Start the process that cleans up if this one is killed; it must not be hit by the same signal."""
        self._watcher = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", samba_watch.__file__],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._tell(f"folder {self._state}")

    def _tell(self, line: str) -> None:
        """Keep the watcher informed; without one, the cleaning up is all ours."""
        if self._watcher is not None and self._watcher.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.stdin.write(f"{line}\n")
                self._watcher.stdin.flush()

    def _first_start(self) -> None:
        """Find a free port by starting on it; somebody else may take it in between, hence several tries."""
        for attempt in range(_START_ATTEMPTS):
            self.port = _free_port()
            self._write_config()
            try:
                self.start()
            except SambaUnavailable:
                if attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                return

    # --- files and users --------------------------------------------------------------------------

    @property
    def _config(self) -> Path:
        return self._state / "smb.conf"

    def _make_folders(self) -> None:
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc", "log"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        for share in self._shares:
            share.folder.mkdir(parents=True, exist_ok=True)

    def _write_config(self) -> None:
        lines = [_GLOBAL.format(port=self.port, state=self._state)]
        lines += [f"  {key} = {value}\n" for key, value in self._options.items()]
        names = [user.name for user in self.users]
        for share in self._shares:
            lines.append(f"[{share.name}]\n  path = {share.folder}\n  read only = no\n")
            for key, value in share.options.items():
                lines.append(f"  {key} = {value.format(*names) if names else value}\n")
        self._config.write_text("".join(lines))

    def _add_user(self) -> None:
        user = SambaUser(f"imgp{secrets.token_hex(5)}", secrets.token_urlsafe(15))
        self.users.append(user)
        self._tell(f"user {user.name}")
        _run("useradd", "-M", "-s", "/usr/sbin/nologin", "-c", GECOS, user.name)
        answer = f"{user.password}\n{user.password}\n"
        _run("smbpasswd", "-c", str(self._config), "-s", "-a", user.name, stdin=answer)


def _run(tool: str, *args: str, stdin: str | None = None) -> None:
    path = shutil.which(tool) or tool
    done = subprocess.run(  # noqa: S603 - fixed tools, arguments made here
        [path, *args], input=stdin, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise SambaUnavailable(f"{tool} failed: {done.stderr.strip() or done.returncode}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
