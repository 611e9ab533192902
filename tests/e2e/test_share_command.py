"""`imageport share` as a process against real Samba: listing, copying, going on, errors; no password is shown."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from imaging.units import GiB, MiB
from tests.support.disks import pattern
from tests.support.samba import Rig, samba_rig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONTENT = random.Random(9).randbytes(3 * MiB + 77)


@dataclass
class Command:
    """Runs `imageport share` with the account of the rig."""

    rig: Rig
    home: Path

    def __post_init__(self) -> None:
        user = self.rig.server.user
        self.secret = user.password
        self.file = self.home / "secret"
        self.file.write_text(f"username={user.name}\npassword={user.password}\n")
        self.file.chmod(0o600)

    def url(self, path: str = "", share: str = "plain") -> str:
        """Name something on the share."""
        return f"smb://127.0.0.1:{self.rig.server.port}/{share}/{path}"

    def words(self, *arguments: str | Path) -> list[str]:
        """Return the whole command."""
        return [*imageport("share"), *map(str, arguments), "--credential-file", str(self.file)]

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        done = subprocess.run(
            self.words(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.home)},
        )
        assert self.secret not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One server for the whole file."""
    with samba_rig(shares={"ro": {"read only": "yes"}}) as running:
        yield running


@pytest.fixture
def share(rig: Rig, tmp_path: Path) -> Command:
    """The command on an empty share."""
    for path in rig.folder.iterdir():
        path.unlink()
    return Command(rig, tmp_path)


def test_a_file_goes_there_and_back_with_the_same_root(share: Command, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    code, there, err = share("put", tmp_path / "a.bin", share.url("a.bin"), "--verify")
    assert (code, err) == (0, "")
    assert (share.rig.folder / "a.bin").read_bytes() == CONTENT
    code, back, err = share("get", share.url("a.bin"), tmp_path / "b.bin")
    assert (code, back, err) == (0, there, "")
    assert (tmp_path / "b.bin").read_bytes() == CONTENT
    assert sorted(path.name for path in share.rig.folder.iterdir()) == ["a.bin"]
    assert not list((tmp_path / ".local").rglob("*.journal"))


def test_an_empty_file_goes_there_and_back(share: Command, tmp_path: Path) -> None:
    (tmp_path / "a.bin").touch()
    assert share("put", tmp_path / "a.bin", share.url("a.bin")) == (0, "", "")
    assert share("get", share.url("a.bin"), tmp_path / "b.bin") == (0, "", "")
    assert (tmp_path / "b.bin").read_bytes() == b""


def test_holes_are_neither_read_nor_sent(share: Command, tmp_path: Path) -> None:
    with (tmp_path / "a.raw").open("wb") as file:
        file.truncate(64 * GiB)
        file.seek(40 * GiB)
        file.write(CONTENT)
    code, out, err = share("put", tmp_path / "a.raw", share.url("a.raw"), "--json")
    told = json.loads(out)
    assert (code, err, told["schema"], told["size"]) == (0, "", "share-put/1", 64 * GiB)
    assert told["bytes_written"] <= 4 * MiB
    assert (share.rig.folder / "a.raw").stat().st_blocks * 512 <= 4 * MiB
    code, out, _ = share("get", share.url("a.raw"), tmp_path / "b.raw", "--json")
    back = json.loads(out)
    assert (code, back["schema"], back["root"]) == (0, "share-get/1", told["root"])
    assert back["bytes_read"] <= 4 * MiB
    assert (tmp_path / "b.raw").stat().st_blocks * 512 <= 4 * MiB


def test_a_disk_is_converted_on_its_way_and_read_by_qemu(share: Command, tmp_path: Path) -> None:
    disk = pattern(MiB) + bytes(MiB) + pattern(MiB, 2)
    (tmp_path / "a.raw").write_bytes(disk)
    to = ("--to", "vhdx:dynamic", "--verify")
    code, root, err = share("put", tmp_path / "a.raw", share.url("a.vhdx"), *to)
    assert (code, err) == (0, "")
    written = share.rig.folder / "a.vhdx"
    compared = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", tmp_path / "a.raw", written],
        capture_output=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr
    code, back, _ = share("get", share.url("a.vhdx"), tmp_path / "b.raw", "--to", "raw")
    assert (code, back) == (0, root)
    assert (tmp_path / "b.raw").read_bytes() == disk


def test_an_interrupted_put_is_gone_on_with(share: Command, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(64 * MiB)
    with (tmp_path / "a.raw").open("wb") as file:
        for _ in range(16):
            file.write(content)
    size = 16 * len(content)
    words = ("put", tmp_path / "a.raw", share.url("a.raw"), "--json")
    running = subprocess.Popen(
        share.words(*words),
        env={**os.environ, "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_blocks > 2000 for path in share.rig.folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGINT, told
    assert "the same command goes on" in told
    (part,) = (path.name for path in share.rig.folder.iterdir())
    assert part.startswith("a.raw.part-put-")
    _, listed, _ = share("ls", share.url())
    assert "unfinished a.raw, of job put-" in listed
    code, out, err = share(*words)
    done = json.loads(out)
    assert code == 0, err
    assert 0 < done["resumed_from"] < size
    assert f"goes on at byte {done['resumed_from']}" in err
    assert done["bytes_read"] == size - done["resumed_from"]
    same = subprocess.run(["cmp", tmp_path / "a.raw", share.rig.folder / "a.raw"], check=False)
    assert same.returncode == 0
    _, out, _ = share("get", share.url("a.raw"), tmp_path / "b.raw", "--json")
    assert json.loads(out)["root"] == done["root"]


def test_a_server_that_restarts_in_the_middle_costs_a_pause(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(64 * MiB)
    with (tmp_path / "a.raw").open("wb") as file:
        for _ in range(12):
            file.write(content)
    with samba_rig() as own:
        share = Command(own, tmp_path)
        with subprocess.Popen(
            share.words("put", tmp_path / "a.raw", share.url("a.raw"), "--json"),
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            deadline = time.monotonic() + 60
            while not any(path.stat().st_blocks > 2000 for path in own.folder.iterdir()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            own.server.restart()
            out, err = running.communicate(timeout=100)
        assert running.returncode == 0, err
        assert "share lost" in err
        assert json.loads(out)["bytes_written"] == 12 * len(content)
        same = subprocess.run(["cmp", tmp_path / "a.raw", own.folder / "a.raw"], check=False)
        assert same.returncode == 0


def test_a_copy_that_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(random.Random(3).randbytes(20 * MiB))
    with samba_rig() as own:
        share = Command(own, tmp_path)
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=777", "small", str(own.folder)]
        subprocess.run(mount, check=True)
        try:
            code, out, err = share("put", tmp_path / "a.raw", share.url("a.raw"), "--json")
            assert (code, json.loads(out)["code"]) == (73, "share.full")
            assert share.url("a.raw") in err
            assert list(own.folder.iterdir()) == []
            assert not list((tmp_path / ".local").rglob("put-*"))
        finally:
            own.stack.close()
            subprocess.run(["umount", "-l", str(own.folder)], check=True)


def test_a_vdisk_of_a_pvs_store_is_one_row(share: Command) -> None:
    store = (
        "Gold.vhdx", "Gold.pvp", "Gold.1.avhdx", "Gold.1.pvp", "Gold.2.avhdx", "Gold.2.pvp",
        "Gold.2.lok", "plain.vhdx",
    )  # fmt: skip
    for name in store:
        share.rig.write(name, b"x")
    code, out, _ = share("ls", share.url())
    assert code == 0
    rows = out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["Gold.2.avhdx", "plain.vhdx"]
    assert "vDisk, 3 versions, locked" in rows[1]
    _, out, _ = share("ls", share.url(), "--json")
    (disk,) = json.loads(out)["vdisks"]
    assert disk["chain"] == ["Gold.vhdx", "Gold.1.avhdx", "Gold.2.avhdx"]
    assert (disk["is_locked"], disk["is_whole"]) == (True, True)
    _, out, _ = share("ls", share.url(), "--all")
    assert len(out.splitlines()) == 1 + len(store)


def test_stat_tells_sizes_and_number(share: Command) -> None:
    file = share.rig.write("a.raw", CONTENT)
    code, out, _ = share("stat", share.url("a.raw"), "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["schema"], told["size"]) == ("share-stat/1", len(CONTENT))
    assert told["file_id"] == file.stat().st_ino


@pytest.mark.parametrize("name", ["ä#b?c%.raw", "a b\U0001f4bf.raw"], ids=["marks", "non-BMP"])
def test_odd_names_are_taken_as_they_are(share: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    url = share.url(name.replace("%", "%25"))
    code, _, err = share("put", tmp_path / "a", url)
    assert code in {0, 2}, err  # `?` is none that Windows has.
    if "?" not in name:
        assert (share.rig.folder / name).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("get", "nope.raw", "x.raw"), 66, "share.not-found"),
        (("get", "../x.raw", "x.raw"), 2, "share.bad-path"),
        (("get", "", "x.raw"), 2, "doctor.bad-share"),
        (("stat", "nope.raw"), 66, "share.not-found"),
        (("ls", "nope"), 66, "share.not-found"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_done_has_a_code(
    share: Command, tmp_path: Path, words: tuple[str, ...], code: int, name: str
) -> None:
    verb, path, *more = words
    found, out, err = share(verb, share.url(path), *(tmp_path / one for one in more), "--json")
    assert (found, json.loads(out)["code"]) == (code, name), err
    assert "Traceback" not in err


def test_a_read_only_share_and_a_file_in_the_way_are_refused(
    share: Command, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    code, out, _ = share("put", tmp_path / "a", share.url("a", "ro"), "--json")
    assert (code, json.loads(out)["code"]) == (77, "share.access-denied")
    share.rig.write("a", b"old")
    code, out, _ = share("put", tmp_path / "a", share.url("a"), "--json")
    assert (code, json.loads(out)["code"]) == (73, "share.already-there")
    assert share("put", tmp_path / "a", share.url("a"), "--replace")[0] == 0
    assert (share.rig.folder / "a").read_bytes() == CONTENT


def test_a_wrong_password_is_named_and_not_shown(share: Command) -> None:
    share.secret = "not-the-password-8472"
    user = share.rig.server.user.name
    share.file.write_text(f"username={user}\npassword={share.secret}\n")
    code, out, err = share("ls", share.url(), "--json")
    assert (code, json.loads(out)["code"]) == (77, "share.logon-failed")
    assert user in err


def test_a_source_that_changes_is_not_given_its_name(share: Command, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(CONTENT * 100)
    running = subprocess.Popen(
        share.words("put", tmp_path / "big", share.url("big")),
        env={**os.environ, "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(share.rig.folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.utime(tmp_path / "big", (1, 1))
    _, told = running.communicate(timeout=60)
    assert running.returncode == 65, told
    assert "share.file-changed" in told
    assert not (share.rig.folder / "big").exists()
