"""References to shares refuse names with a second meaning, credentials keep their secret."""

import pytest

from agent.secrets import Secret
from agent.shares.errors import BadPath
from agent.shares.smb.ref import SmbCredential, SmbShareRef


def test_unc_is_what_windows_writes() -> None:
    assert SmbShareRef("files.example", "Gold Images$").unc == r"\\files.example\Gold Images$"


def test_an_unusual_port_shows_in_messages() -> None:
    assert str(SmbShareRef("files", "gold")) == r"\\files\gold"
    assert "4455" in str(SmbShareRef("files", "gold", 4455))


@pytest.mark.parametrize(
    "arguments",
    [
        ("", "gold"),
        ("files", ""),
        ("files/x", "gold"),
        ("files", "gold\\sub"),
        ("fi\nles", "gold"),
        ("files", "gold", 0),
        ("files", "gold", 65536),
        ("files", "gold", 445, "../up"),
        ("files", "gold", 445, "/abs"),
    ],
)
def test_a_reference_with_a_second_meaning_is_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(BadPath):
        SmbShareRef(*arguments)


def test_the_password_is_in_no_repr() -> None:
    credential = SmbCredential("alice", Secret("s3cr3t-8472"), "CORP")
    assert "8472" not in f"{credential!r} {credential}"


def test_the_principal_carries_the_domain() -> None:
    assert SmbCredential("alice", Secret("x"), "CORP").principal == r"CORP\alice"
    assert SmbCredential("alice@corp.example", Secret("x")).principal == "alice@corp.example"
