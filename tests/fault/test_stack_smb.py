"""Uploads from a real Samba share through the whole house: restarts, wrong credentials, changing files."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.sim.samba import Samba, SambaShare, why_unavailable
from imaging.units import MiB
from tests.support.stack import Stack

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("stack"),
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]

SIZE = 160 * MiB
"""More than the pump's workers hold (8 chunks): there is something left to read when the share goes."""
BANDWIDTH = 32 * MiB


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        (stack.share / "golden.raw").write_bytes(random.Random(2).randbytes(SIZE))
        stack.start_all()
        yield stack


@pytest.fixture
def samba(tmp_path: Path, stack: Stack) -> Iterator[Samba]:
    share = SambaShare("images", stack.share, {"force user": "root"})
    with Samba(tmp_path / "samba", [share]) as samba:
        yield samba


def order(
    stack: Stack, samba: Samba, *, path: str = "golden.raw", password: str = "", **source: Any
) -> str:
    user = samba.user
    place = {
        "kind": "smb",
        "server": "127.0.0.1",
        "port": samba.port,
        "share": "images",
        "credential": {"username": user.name, "password": password or user.password},
        **source,
    }
    target = {"kind": "local", "name": "cloud", "disk": "golden"}
    return stack.submit(stack.job(place, path, target, format="raw", bandwidth=BANDWIDTH))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_progress(stack: Stack, job: str) -> None:
    wait_until(lambda: ((stack.show(job).get("progress") or {}).get("done") or 0) >= 8 * MiB)


def test_a_share_that_restarts_in_mid_copy_costs_a_pause(stack: Stack, samba: Samba) -> None:
    job = order(stack, samba)
    wait_for_progress(stack, job)
    samba.kill()
    wait_until(lambda: "share lost" in stack.log("agent"))
    samba.start()
    shown = stack.wait(job)
    assert shown["state"] == "succeeded", shown
    assert (stack.cloud / "golden.raw").read_bytes() == (stack.share / "golden.raw").read_bytes()


def test_a_file_that_changes_in_mid_copy_is_never_a_finished_disk(
    stack: Stack, samba: Samba
) -> None:
    job = order(stack, samba)
    wait_for_progress(stack, job)
    with (stack.share / "golden.raw").open("r+b") as file:
        file.seek(SIZE - 512)
        file.write(b"changed" * 64)
    shown = stack.wait(job)
    assert shown["state"] == "failed"
    assert shown["code"] in ("job.source-changed", "share.file-changed")
    assert not (stack.cloud / "golden.raw").exists()
    assert any("golden" in left for left in shown["result"]["report"]["left"])


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"password": "wrong"}, "share.logon-failed"),
        ({"share": "nowhere"}, "share.no-such-share"),
        ({"path": "gone.raw"}, "share.not-found"),
        ({"path": "../etc/passwd"}, "share.bad-path"),
    ],
    ids=["password", "share", "file", "path"],
)
def test_what_is_wrong_with_the_share_is_named_with_its_fix(
    stack: Stack, samba: Samba, wrong: dict[str, Any], code: str
) -> None:
    shown = stack.wait(order(stack, samba, **wrong))
    assert (shown["state"], shown["code"]) == ("failed", code), shown
    assert shown["result"]["report"]["fix"]
    assert samba.user.password not in stack.log("agent")
    assert list(stack.cloud.iterdir()) == []
