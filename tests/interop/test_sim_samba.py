"""The private Samba server: it leaves nothing behind, however its owner ends."""

import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.secrets import Secret
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from appliance.sim.samba import Samba, SambaShare, SambaUnavailable, why_unavailable
from appliance.sim.samba_watch import session_members, watch
from imaging.device import read_bytes

pytestmark = pytest.mark.interop

GUARD = 30.0

OWNER = """
import signal, sys
from pathlib import Path
from appliance.sim.samba import Samba, SambaShare

home = Path(sys.argv[1])
with Samba(home / "state", [SambaShare("plain", home / "data")]) as server:
    print(server.port, server.user.name, server._process.pid, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def _needs_samba() -> None:
    reason = why_unavailable()
    if reason:
        pytest.skip(reason)


def _user_exists(name: str) -> bool:
    return name in {entry.pw_name for entry in pwd.getpwall()}


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_leaving_it_removes_processes_users_and_state_but_not_the_data(tmp_path: Path) -> None:
    with Samba(tmp_path / "state", [SambaShare("plain", tmp_path / "data")], users=2) as server:
        names = [user.name for user in server.users]
        assert all(map(_user_exists, names))
        assert _listens(server.port)
        (tmp_path / "data" / "kept").touch()
    assert not any(map(_user_exists, names))
    assert not _listens(server.port)
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "data" / "kept").exists()


def test_a_closed_folder_can_be_served_as_root(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "image.raw").write_bytes(b"gold")
    (folder / "image.raw").chmod(0o600)
    served = SambaShare("plain", folder, {"force user": "root", "read only": "yes"})
    with Samba(tmp_path / "state", [served]) as server:
        share = SmbShare(
            SmbShareRef("127.0.0.1", "plain", server.port),
            SmbCredential(server.user.name, Secret(server.user.password)),
        )
        assert read_bytes(share.open_read("image.raw"), 0, 4) == b"gold"
        share.close()


def test_restart_keeps_port_and_users(tmp_path: Path) -> None:
    with Samba(tmp_path / "state", [SambaShare("plain", tmp_path / "data")]) as server:
        before = server.port, server.user
        server.kill()
        assert not _listens(server.port)
        server.start()
        assert _listens(server.port)
        assert (server.port, server.user) == before


def test_an_owner_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        port, user, session = owner.stdout.readline().split()
        assert _user_exists(user)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + GUARD
    while _user_exists(user) or (tmp_path / "state").exists():
        assert time.monotonic() < deadline, "the watcher did not clean up"
        time.sleep(0.05)
    assert not _listens(int(port))
    assert session_members(int(session)) == []


def test_a_server_that_cannot_start_says_so_and_leaves_no_user(tmp_path: Path) -> None:
    made: list[str] = []

    class Recording(Samba):
        def _tell(self, line: str) -> None:
            made.extend([line.removeprefix("user ")] if line.startswith("user ") else [])
            super()._tell(line)

    share = SambaShare("plain", tmp_path / "data", {"smb encrypt": "nonsense"})
    with pytest.raises(SambaUnavailable), Recording(tmp_path / "state", [share]):
        pass
    assert made
    assert not any(map(_user_exists, made))


def test_without_root_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SambaUnavailable, match="needs root") as caught, Samba(tmp_path, []):
        pass
    assert caught.value.code == "sim.samba-unavailable"


def test_without_the_package_it_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "smbd" in str(why_unavailable())


def test_a_watcher_that_was_told_done_touches_nothing(tmp_path: Path) -> None:
    watch([f"folder {tmp_path}\n", "done\n"])
    assert tmp_path.exists()
    watch([f"folder {tmp_path}\n"])
    assert not tmp_path.exists()
