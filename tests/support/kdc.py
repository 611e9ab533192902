"""A private MIT Kerberos realm for tests: its own database, port and configuration; never the system's."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from appliance.sim.samba import _free_port as free_port

REALM = "IMG.TEST"
HOST = "files.img.test"
TOOLS = ("krb5kdc", "kadmin.local", "kdb5_util")

_KRB5 = """\
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  rdns = false
  dns_canonicalize_hostname = false
  kdc_timeout = 3
  max_retries = 1
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  .img.test = {realm}
"""

_KDC = """\
[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
    max_life = 1h
    disable_pac = true
  }}
"""


def why_unavailable() -> str | None:
    """Say why no realm can be had here; None if it can."""
    missing = [tool for tool in TOOLS if _tool(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (krb5-kdc, krb5-admin-server)"
    absent = [name for name in ("gssapi", "krb5") if find_spec(name) is None]
    return f"not installed: {', '.join(absent)} (smbprotocol[kerberos])" if absent else None


@dataclass
class Realm:
    """A running realm; its configuration is in KRB5_CONFIG and KRB5_KDC_PROFILE."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def admin(self, command: str) -> None:
        """Run one command of kadmin.local."""
        subprocess.run(
            [str(_tool("kadmin.local")), "-q", command],
            check=True,
            capture_output=True,
            timeout=60,
        )

    @property
    def keytab(self) -> Path:
        """The file server's."""
        return self.folder / "keytab"

    def start(self, *, clock: str = "") -> None:
        """Start the key distribution centre, and wait until it listens.

        Args:
            clock: How its clock differs, as faketime(1) takes it: `-2h`.
        """
        faked = ["faketime", "-f", clock] if clock else []
        log = (self.folder / "kdc.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*faked, str(_tool("krb5kdc")), "-n"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while not _listens(self.port):
            assert self.process.poll() is None, (self.folder / "kdc.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def realm(folder: Path) -> Iterator[Realm]:
    """Run a realm with a service principal for a file server at `HOST`."""
    port = free_port()
    (folder / "krb5.conf").write_text(_KRB5.format(realm=REALM, port=port))
    (folder / "kdc.conf").write_text(_KDC.format(realm=REALM, port=port, folder=folder))
    names = {
        "KRB5_CONFIG": str(folder / "krb5.conf"),
        "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
        "KRB5CCNAME": f"FILE:{folder}/no-ccache",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    running = Realm(folder, port)
    try:
        create = [str(_tool("kdb5_util")), "create", "-s", "-P", "master", "-r", REALM]
        subprocess.run(create, check=True, capture_output=True, timeout=60)
        running.admin(f"addprinc -randkey cifs/{HOST}")
        running.admin(f"ktadd -k {running.keytab} cifs/{HOST}")
        running.start()
        yield running
    finally:
        running.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
