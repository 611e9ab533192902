"""Our SMB share with Kerberos: a real realm (MIT) and real Samba; every way that a logon fails is told apart."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from agent.secrets import Secret
from agent.shares.errors import (
    AccountDisabled,
    ClockSkew,
    KdcUnreachable,
    LogonFailed,
    PasswordExpired,
)
from agent.shares.smb.policy import AuthKind, Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from imaging.device import read_bytes
from imaging.units import MiB
from tests.support.kdc import HOST, REALM, Realm, realm, why_unavailable
from tests.support.samba import IMPATIENT, Rig, samba_rig

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
    pytest.mark.xdist_group("kerberos"),
]

KERBEROS = replace(IMPATIENT, auth=AuthKind.KERBEROS)
PASSWORD = "correct-horse-51"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """A realm for the whole file."""
    with realm(tmp_path_factory.mktemp("realm")) as running:
        yield running


@pytest.fixture(scope="module")
def rig(domain: Realm) -> Iterator[Rig]:
    """A file server of the realm; its first account has a principal of the same name."""
    options = {
        "realm": REALM,
        "kerberos method": "dedicated keytab",
        "dedicated keytab file": str(domain.keytab),
    }
    with samba_rig(options=options) as running:
        domain.admin(f"addprinc -pw {PASSWORD} {running.server.user.name}")
        running.write("image.raw", os.urandom(3 * MiB))
        yield running


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file server's name lead to this machine."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **kwargs: object) -> object:
        return real("127.0.0.1" if host == HOST else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def connect(
    rig: Rig, user: str, password: str = PASSWORD, *, policy: SmbPolicy = KERBEROS, domain: str = ""
) -> SmbShare:
    ref = SmbShareRef(HOST, "plain", rig.server.port)
    share = SmbShare(ref, SmbCredential(user, Secret(password), domain), policy=policy)
    rig.stack.callback(share.close)
    return share


@pytest.mark.parametrize("encryption", list(Encryption), ids=lambda e: e.value)
def test_a_file_is_read_and_written_with_a_ticket(
    rig: Rig, tmp_path: Path, encryption: Encryption
) -> None:
    policy = replace(KERBEROS, encryption=encryption)
    share = connect(rig, f"{rig.server.user.name}@{REALM}", policy=policy)
    assert share.connect().auth == "kerberos"
    content = read_bytes(share.open_read("image.raw"), 0, 3 * MiB)
    assert content == (rig.folder / "image.raw").read_bytes()
    with share.create("new.raw", job="k", journal=tmp_path / "j", replace=True) as file:
        file.write(0, content)
        file.commit()
    assert (rig.folder / "new.raw").read_bytes() == content


def test_a_domain_of_its_own_names_the_realm(rig: Rig) -> None:
    share = connect(rig, rig.server.user.name, domain=REALM)
    assert share.connect().auth == "kerberos"


def test_negotiate_says_which_way_it_took(rig: Rig) -> None:
    policy = replace(KERBEROS, auth=AuthKind.NEGOTIATE)
    by_ticket = connect(rig, f"{rig.server.user.name}@{REALM}", policy=policy)
    assert by_ticket.connect().auth == "kerberos"
    assert rig.share(policy=policy).connect().auth == "ntlm"


def test_kerberos_only_takes_no_ntlm(rig: Rig) -> None:
    with pytest.raises(LogonFailed):
        rig.share(policy=KERBEROS).connect()


def _wrong_password(domain: Realm) -> str:
    domain.admin(f"addprinc -pw other {_wrong_password.__name__}")
    return _wrong_password.__name__


def _expired(domain: Realm) -> str:
    domain.admin(f"addprinc -pw {PASSWORD} -pwexpire 1970-01-02 {_expired.__name__}")
    return _expired.__name__


def _disabled(domain: Realm) -> str:
    domain.admin(f"addprinc -pw {PASSWORD} -allow_tix {_disabled.__name__}")
    return _disabled.__name__


def _unknown(_: Realm) -> str:
    return "nobody-knows-me"


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (_wrong_password, LogonFailed, "wrong password"),
        (_unknown, LogonFailed, "no such user"),
        (_expired, PasswordExpired, "expired"),
        (_disabled, AccountDisabled, "disabled"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else None,
)
def test_each_refusal_of_a_logon_has_its_own_name(
    rig: Rig, domain: Realm, make: object, kind: type[LogonFailed], words: str
) -> None:
    assert callable(make)
    user = make(domain)
    with pytest.raises(LogonFailed, match=words) as caught:
        connect(rig, f"{user}@{REALM}").connect()
    assert type(caught.value) is kind
    assert PASSWORD not in repr((caught.value, caught.value.fields))


def test_a_file_server_that_the_realm_does_not_know_is_named(rig: Rig) -> None:
    ref = SmbShareRef("127.0.0.1", "plain", rig.server.port)
    credential = SmbCredential(f"{rig.server.user.name}@{REALM}", Secret(PASSWORD))
    share = SmbShare(ref, credential, policy=KERBEROS)
    with pytest.raises(LogonFailed, match="no such file server"):
        share.connect()
    share.close()


def test_a_realm_that_does_not_answer_may_be_tried_again(rig: Rig, domain: Realm) -> None:
    domain.stop()
    try:
        with pytest.raises(KdcUnreachable) as caught:
            connect(rig, f"{rig.server.user.name}@{REALM}").connect()
        assert caught.value.retryable
    finally:
        domain.start()
    assert connect(rig, f"{rig.server.user.name}@{REALM}").connect()


@pytest.mark.skipif(which("faketime") is None, reason="not installed: faketime")
@pytest.mark.parametrize("clock", ["-2h", "+2h"])
def test_clocks_that_differ_are_named(rig: Rig, domain: Realm, clock: str) -> None:
    domain.stop()
    domain.start(clock=clock)
    try:
        with pytest.raises(ClockSkew, match="clock"):
            connect(rig, f"{rig.server.user.name}@{REALM}").connect()
    finally:
        domain.stop()
        domain.start()
