"""What is wrong with an account, as real Samba says it to NTLM: told apart, each with its own code."""

import subprocess

import pytest

from agent.shares.errors import AccountDisabled, LogonFailed, PasswordExpired
from tests.support.samba import samba_rig

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (["smbpasswd", "-c", "{config}", "-d", "{user}"], AccountDisabled),
        (["pdbedit", "-s", "{config}", "-u", "{user}", "-c", "[L]"], AccountDisabled),
        (["net", "-s", "{config}", "sam", "set", "pwdmustchangenow", "{user}", "yes"], PasswordExpired),
    ],
    ids=["disabled", "locked", "must change"],
)  # fmt: skip
def test_what_is_wrong_with_an_account_is_told_apart(
    change: list[str], kind: type[LogonFailed]
) -> None:
    with samba_rig() as accounts:
        share = accounts.share()
        share.connect()
        share.close()
        names = {
            "config": str(accounts.folder.parent / "state" / "smb.conf"),
            "user": accounts.server.user.name,
        }
        words = [word.format(**names) for word in change]
        subprocess.run(words, check=True, capture_output=True)
        with pytest.raises(LogonFailed) as caught:
            accounts.share().connect()
        assert type(caught.value) is kind, caught.value
