"""Our SMB share against real Samba: what only a real server can say about logon, policy, sparse files and bytes."""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.secrets import Secret
from agent.shares.errors import (
    AccessDenied,
    BadPath,
    InUse,
    LogonFailed,
    NoSuchShare,
    NotAFile,
    NotFound,
    SecurityRefused,
    ShareUnreachable,
)
from agent.shares.smb.file import EXTENT_WINDOW, SMALLEST_WINDOW
from agent.shares.smb.policy import AuthKind, Dialect, Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential
from imaging.device import read_bytes
from imaging.extent import Extent, Kind, data_bytes
from imaging.units import GiB, KiB, MiB
from tests.support.samba import IMPATIENT, SIGNED, Rig, samba_rig
from tests.support.smb_proxy import TO_CLIENT, TO_SERVER, SmbProxy

pytestmark = pytest.mark.interop

SHARES = {
    "enc": {"smb encrypt": "required"},
    "mine": {"valid users": "{0}"},
    "theirs": {"valid users": "{1}"},
}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One server for the whole file; nothing here harms it."""
    with samba_rig(users=2, shares=SHARES) as running:
        running.write("image.raw", os.urandom(3 * MiB + 17))
        yield running


# --- what is agreed -------------------------------------------------------------------------------


def test_default_policy_is_encrypted_on_the_newest_dialect(rig: Rig) -> None:
    facts = rig.share(policy=SmbPolicy()).connect()
    assert (facts.dialect, facts.encryption) == ("3.1.1", "AES-128-GCM")


@pytest.mark.parametrize("share", ["plain", "enc"])
@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda d: d.name)
@pytest.mark.parametrize("encryption", list(Encryption), ids=lambda e: e.value)
def test_every_policy_reads_the_same_bytes(
    rig: Rig, share: str, dialect: Dialect, encryption: Encryption
) -> None:
    policy = replace(IMPATIENT, oldest_dialect=dialect, encryption=encryption)
    file = rig.share(share, policy=policy).open_read("image.raw")
    assert read_bytes(file, 0, file.size) == (rig.folder / "image.raw").read_bytes()


def test_a_signed_policy_still_encrypts_where_the_share_insists(rig: Rig) -> None:
    assert rig.share("plain", policy=SIGNED).connect().encryption == "none"
    assert rig.share("enc", policy=SIGNED).connect().encryption == "AES-128-GCM"


def test_ntlm_alone_logs_on(rig: Rig) -> None:
    share = rig.share(policy=replace(IMPATIENT, auth=AuthKind.NTLM))
    assert share.connect().auth == "ntlm"


@pytest.mark.parametrize("encryption", list(Encryption), ids=lambda e: e.value)
def test_an_older_server_is_refused_unless_the_policy_allows_it(encryption: Encryption) -> None:
    strict = replace(IMPATIENT, encryption=encryption)
    with samba_rig(options={"server max protocol": "SMB3_02"}) as old:
        old.write("image.raw", b"old" * MiB)
        with pytest.raises(SecurityRefused):
            old.share(policy=strict).connect()
        lenient = replace(strict, oldest_dialect=Dialect.SMB_3_0_2)
        share = old.share(policy=lenient)
        assert share.connect().dialect == "3.0.2"
        assert read_bytes(share.open_read("image.raw"), 0, 3 * MiB) == b"old" * MiB


def test_smb_3_0_0_is_below_every_policy() -> None:
    lenient = replace(IMPATIENT, oldest_dialect=Dialect.SMB_3_0_2)
    with (
        samba_rig(options={"server max protocol": "SMB3_00"}) as ancient,
        pytest.raises(SecurityRefused, match="0x0300"),
    ):
        ancient.share(policy=lenient).connect()


def test_a_server_that_cannot_encrypt_is_refused_by_default() -> None:
    with samba_rig(options={"smb encrypt": "off"}) as bare:
        with pytest.raises(SecurityRefused, match="does not encrypt"):
            bare.share().connect()
        assert bare.share(policy=replace(IMPATIENT, encryption=Encryption.PREFER)).connect()


def test_a_guest_session_is_refused() -> None:
    with samba_rig(
        shares={"open": {"guest ok": "yes"}}, options={"map to guest": "bad user"}
    ) as guests:
        stranger = SmbCredential("nobody-knows-me", Secret("x"))
        for policy in (IMPATIENT, SIGNED):
            with pytest.raises((SecurityRefused, LogonFailed)):
                guests.share("open", policy=policy, credential=stranger).connect()


# --- who and where --------------------------------------------------------------------------------


def test_a_wrong_password_is_named_and_not_shown(rig: Rig) -> None:
    wrong = SmbCredential(rig.server.user.name, Secret("not-the-password-8472"))
    with pytest.raises(LogonFailed) as caught:
        rig.share(credential=wrong).connect()
    assert caught.value.code == "share.logon-failed"
    assert rig.server.user.name in str(caught.value)
    assert "8472" not in repr((caught.value, caught.value.fields, wrong))


def test_a_refused_logon_is_not_repeated(rig: Rig) -> None:
    with SmbProxy(rig.server.port) as proxy:
        wrong = SmbCredential(rig.server.user.name, Secret("wrong"))
        share = rig.share(credential=wrong, port=proxy.port)
        for call in (share.connect, share.free_space, lambda: share.open_read("image.raw")):
            with pytest.raises(LogonFailed):
                call()
    assert proxy.connections == 1  # Three tries would be three steps towards a locked account.


def test_a_missing_share_is_named(rig: Rig) -> None:
    with pytest.raises(NoSuchShare, match="nowhere"):
        rig.share("nowhere").connect()


def test_a_missing_server_is_named_at_once(rig: Rig) -> None:
    with SmbProxy(rig.server.port) as gone:
        port = gone.port
    with pytest.raises(ShareUnreachable, match=str(port)):
        rig.share(port=port).connect()


def test_a_file_that_the_user_may_not_read_is_named(rig: Rig) -> None:
    rig.write("secret.raw", b"x").chmod(0o600)
    with pytest.raises(AccessDenied, match=r"secret\.raw"):
        rig.share().open_read("secret.raw")


def test_a_share_that_the_user_may_not_enter_is_named(rig: Rig) -> None:
    with pytest.raises(AccessDenied, match="theirs"):
        rig.share("theirs").connect()


def test_paths_start_at_the_configured_folder(rig: Rig) -> None:
    rig.write("gold/win11/image.vhdx", b"gold")
    share = rig.share(folder="gold/win11")
    assert share.list("") == ["image.vhdx"]
    assert read_bytes(share.open_read("image.vhdx"), 0, 4) == b"gold"


def test_one_tenants_session_never_serves_another(rig: Rig) -> None:
    mine, theirs = (rig.credential(user) for user in rig.server.users)
    assert rig.share("mine", credential=mine).list("")
    assert rig.share("theirs", credential=theirs).list("")
    with pytest.raises(AccessDenied):
        rig.share("mine", credential=theirs).connect()
    with pytest.raises(LogonFailed):
        rig.share("mine", credential=SmbCredential(mine.username, Secret("wrong"))).connect()
    with pytest.raises(LogonFailed):
        rig.share("mine", credential=SmbCredential(mine.username, Secret(""))).connect()


def test_nobody_can_write_a_file_while_it_is_read(rig: Rig) -> None:
    rig.write("held.raw", b"x" * MiB)
    file = rig.share().open_read("held.raw")
    with pytest.raises(Exception, match="0xc0000043"):
        rig.mark_sparse("held.raw")
    file.close()
    rig.mark_sparse("held.raw")


def test_a_file_that_is_being_written_is_named_as_in_use(rig: Rig) -> None:
    rig.write("busy.raw", b"x" * MiB)
    with rig.writing("busy.raw"), pytest.raises(InUse, match=r"busy\.raw"):
        rig.share().open_read("busy.raw")
    assert rig.share().open_read("busy.raw").size == MiB


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [IMPATIENT, SIGNED], ids=["encrypted", "signed"])
def test_many_threads_read_one_file_over_one_connection(rig: Rig, policy: SmbPolicy) -> None:
    content = os.urandom(24 * MiB + 4321)
    rig.write("wide.raw", content)
    file = rig.share(policy=replace(policy, depth=(2, 3), connections=1)).open_read("wide.raw")
    piece = 3 * MiB + 511
    wrong: list[int] = []

    def read_every_fourth(first: int) -> None:
        for offset in range(first * piece, len(content), 4 * piece):
            length = min(piece, len(content) - offset)
            if read_bytes(file, offset, length) != content[offset : offset + length]:
                wrong.append(offset)

    threads = [threading.Thread(target=read_every_fourth, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("chunk", [64 * KiB, 8 * MiB])
def test_chunks_from_one_credit_to_the_servers_largest(rig: Rig, chunk: int) -> None:
    content = os.urandom(17 * MiB + 3)
    rig.write("chunks.raw", content)
    file = rig.share(policy=replace(IMPATIENT, chunk=chunk)).open_read("chunks.raw")
    assert read_bytes(file, 1, len(content) - 1) == content[1:]


def test_a_sparse_file_costs_only_its_data(rig: Rig) -> None:
    pieces = [Extent(index * 13 * GiB + 64 * KiB, 50 * MiB, Kind.DATA) for index in range(4)]
    path = rig.write("sparse.raw", b"")
    os.truncate(path, 64 * GiB)
    rig.mark_sparse("sparse.raw")
    with path.open("r+b") as file:
        for piece in pieces:
            file.seek(piece.offset)
            file.write(os.urandom(piece.length))
    with SmbProxy(rig.server.port) as proxy:
        opened = rig.share(port=proxy.port).open_read("sparse.raw")
        extents = list(opened.extents(0, opened.size))
        assert [extent for extent in extents if extent.is_data] == pieces
        assert extents[-1].end == 64 * GiB
        buffer = memoryview(bytearray(5 * MiB))
        for extent in extents:
            for offset in range(extent.offset, extent.end if extent.is_data else 0, len(buffer)):
                opened.read_into(offset, buffer)
                with path.open("rb") as file:
                    file.seek(offset)
                    assert file.read(len(buffer)) == buffer
    assert data_bytes(extents) == 200 * MiB
    assert proxy.to_client < 201 * MiB


def test_more_ranges_than_fit_one_answer_are_asked_for_in_smaller_windows(rig: Rig) -> None:
    path = rig.write("comb.raw", b"")
    rig.mark_sparse("comb.raw")
    spacing = SMALLEST_WINDOW // 64
    count = 3 * 4096
    with path.open("r+b") as file:
        for index in range(count):
            file.seek(index * spacing)
            file.write(b"\xff" * 4 * KiB)
        file.truncate(count * spacing)
    assert count * spacing < EXTENT_WINDOW
    opened = rig.share().open_read("comb.raw")
    data = [extent for extent in opened.extents(0, opened.size) if extent.is_data]
    assert data == [Extent(i * spacing, 4 * KiB, Kind.DATA) for i in range(count)]


def test_one_window_with_too_many_ranges_is_taken_for_data(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.write("dust.raw", b"")
    rig.mark_sparse("dust.raw")
    with path.open("r+b") as file:
        for index in range(256):
            file.seek(index * 8 * KiB)
            file.write(b"\xff" * 4 * KiB)
        file.truncate(2 * MiB)
    monkeypatch.setattr("agent.shares.smb.calls.METADATA_BYTES", 64 * 16)
    opened = rig.share().open_read("dust.raw")
    assert list(opened.extents(0, opened.size)) == [Extent(0, 2 * MiB, Kind.DATA)]


def test_few_credits_slow_a_read_but_do_not_fail_it() -> None:
    content = os.urandom(9 * MiB + 1)
    with samba_rig(options={"smb2 max credits": "32"}) as poor:
        poor.write("image.raw", content)
        file = poor.share().open_read("image.raw")
        got = bytearray(len(content))

        def read_half(start: int) -> None:
            view = memoryview(got)[start : start + len(content) // 2 + 1]
            file.read_into(start, view)

        threads = [
            threading.Thread(target=read_half, args=(n * (len(content) // 2),)) for n in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == content


def test_an_idle_connection_is_kept_alive(rig: Rig) -> None:
    answered = threading.Semaphore(0)

    def count(direction: str, frame: bytes) -> list[bytes]:
        if direction == TO_CLIENT and idle.is_set():
            answered.release()
        return [frame]

    idle = threading.Event()
    with SmbProxy(rig.server.port, count) as proxy:
        file = rig.share(policy=replace(IMPATIENT, keepalive=1.0), port=proxy.port).open_read(
            "image.raw"
        )
        idle.set()
        for _ in range(2):  # An unanswered ECHO would have ended the connection.
            assert answered.acquire(timeout=30)
        idle.clear()
        assert read_bytes(file, 0, file.size) == (rig.folder / "image.raw").read_bytes()
    assert proxy.connections == 1


def test_a_peer_that_died_silently_is_noticed_while_idle(rig: Rig) -> None:
    deaf = threading.Event()
    unheard: list[bytes] = []
    policy = replace(IMPATIENT, keepalive=1.0, answer_timeout=600)

    def swallow(direction: str, frame: bytes) -> list[bytes]:
        lost = deaf.is_set() and proxy.connections == 1
        if lost and direction == TO_SERVER:
            unheard.append(frame)
        return [] if lost else [frame]

    with SmbProxy(rig.server.port, swallow) as proxy:
        file = rig.share(policy=policy, port=proxy.port).open_read("image.raw")
        deaf.set()
        assert read_bytes(file, 0, file.size) == (rig.folder / "image.raw").read_bytes()
    assert proxy.connections == 2
    assert len(unheard) < 10  # The READs and one ECHO, not ECHOes until the credits are gone.


# --- what a server may do to a share ----------------------------------------------------------------


def test_a_share_that_the_server_withdraws_is_connected_again(rig: Rig, tmp_path: Path) -> None:
    """NETWORK_NAME_DELETED: the session lives, the share does not."""
    content = (rig.folder / "image.raw").read_bytes()
    with SmbProxy(rig.server.port) as proxy:
        share = rig.share(port=proxy.port)
        file = share.open_read("image.raw")
        new = share.create("withdrawn.raw", job="j", journal=tmp_path / "journal", replace=True)
        for _ in range(3):
            new.write(0, content)
            before = proxy.connections
            _withdraw(rig, "plain")
            assert read_bytes(file, 0, file.size) == content
            assert proxy.connections > before
        new.commit()
    assert (rig.folder / "withdrawn.raw").read_bytes() == content


def _withdraw(rig: Rig, share: str) -> None:
    config = rig.folder.parent / "state" / "smb.conf"
    command = ["smbcontrol", "-s", str(config), "smbd", "close-share", share]
    subprocess.run(command, check=True, capture_output=True)


def test_a_referral_to_another_server_is_not_followed() -> None:
    dfs = {"msdfs root": "yes"}
    with samba_rig(shares={"dfs": dfs}, options={"host msdfs": "yes"}) as roots:
        (roots.folder / "elsewhere").symlink_to("msdfs:other.example\\share")
        share = roots.share("dfs")
        for call in (lambda: share.open_read("elsewhere"), lambda: share.list("elsewhere")):
            with pytest.raises((NotFound, NotAFile, AccessDenied, BadPath)):
                call()
