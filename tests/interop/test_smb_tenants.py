"""Two tenants on one file server: no connection, session or credential of one ever serves the other."""

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.secrets import Secret
from agent.shares.errors import AccessDenied, LogonFailed
from agent.shares.smb.ref import SmbCredential
from agent.shares.smb.share import SmbShare
from imaging.device import read_bytes
from imaging.units import MiB
from tests.support.samba import Rig, samba_rig

pytestmark = pytest.mark.interop

SHARES = {"mine": {"valid users": "{0}"}, "theirs": {"valid users": "{1}"}}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One server, two accounts, each with a share of its own."""
    with samba_rig(users=2, shares=SHARES) as running:
        running.write("image.raw", os.urandom(8 * MiB))
        yield running


def sessions(rig: Rig) -> dict[str, set[str]]:
    """Return what smbstatus says: account -> the ports of its connections."""
    config = rig.folder.parent / "state" / "smb.conf"
    told = subprocess.run(
        ["smbstatus", "-s", str(config), "--json"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, set[str]] = {}
    for session in json.loads(told)["sessions"].values():
        port = re.search(r":(\d+)$", session["hostname"])
        found.setdefault(session["username"], set()).add(port[1] if port else session["hostname"])
    return found


def use(share: SmbShare, journal: Path, done: threading.Barrier) -> None:
    """Read over two connections and write over a third, all of them open at the same time."""
    file = share.open_read("image.raw")
    threads = [
        threading.Thread(target=read_bytes, args=(file, n * 4 * MiB, 4 * MiB)) for n in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with share.create(f"{journal.name}.raw", job=journal.name, journal=journal) as new:
        new.write(0, bytes(MiB))
        new.flush()
        done.wait(60)
        done.wait(60)


def test_jobs_of_two_tenants_never_share_a_connection(rig: Rig, tmp_path: Path) -> None:
    barrier = threading.Barrier(3)
    users = rig.server.users
    jobs = []
    for user, name in zip(users, ("mine", "theirs"), strict=True):
        share = rig.share(name, credential=rig.credential(user))
        args = (share, tmp_path / user.name, barrier)
        jobs.append(threading.Thread(target=use, args=args))
    for job in jobs:
        job.start()
    barrier.wait(60)
    seen = sessions(rig)
    barrier.wait(60)
    for job in jobs:
        job.join(60)
    assert set(seen) == {user.name for user in users}
    first, second = (seen[user.name] for user in users)
    assert len(first) >= 2
    assert len(second) >= 2
    assert not first & second


def test_one_tenants_logon_opens_nothing_for_the_other(rig: Rig) -> None:
    first, second = rig.server.users
    mine = rig.share("mine", credential=rig.credential(first))
    assert mine.list("") != []
    with pytest.raises(AccessDenied):
        rig.share("mine", credential=rig.credential(second)).list("")
    for password in ("", "wrong", second.password):
        stolen = SmbCredential(first.name, Secret(password))
        with pytest.raises(LogonFailed):
            rig.share("mine", credential=stolen).list("")
    assert mine.list("") != []


def test_a_closed_share_leaves_no_connection(rig: Rig) -> None:
    before = sessions(rig)
    share = rig.share()
    share.list("")
    share.close()
    for _ in range(500):
        if sessions(rig) == before:
            return
        socket.socket().close()
    pytest.fail(f"still there: {sessions(rig)}")
