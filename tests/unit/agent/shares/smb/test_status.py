"""NTSTATUS numbers become errors by their integer alone."""

import pytest

from agent.errors import AgentError, NeedsOperator, Permanent, Retryable
from agent.shares.smb.status import TABLE, error_for

RETRIED = [0xC00000C9, 0xC0000203, 0xC000035C, 0xC0000128, 0xC000009A, 0xC00000D0]
NEVER_RETRIED = [0xC000006D, 0xC0000071, 0xC0000072, 0xC0000234]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0xC000006D, "share.logon-failed"),
        (0xC0000234, "share.account-disabled"),
        (0xC0000072, "share.account-disabled"),
        (0xC0000071, "share.password-expired"),
        (0xC0000224, "share.password-expired"),
        (0xC0000133, "share.clock-skew"),
        (0xC0000022, "share.access-denied"),
        (0xC00000CC, "share.no-such-share"),
        (0xC0000034, "share.not-found"),
        (0xC000003A, "share.not-found"),
        (0xC0000043, "share.in-use"),
        (0xC000007F, "share.full"),
        (0xC0000044, "share.full"),
        (0xC00000C9, "share.disconnected"),
        (0xC0000011, "share.file-changed"),
        (0xC000009A, "share.busy"),
        (0xDEADBEEF, "share.refused"),
    ],
)
def test_a_status_has_its_code_and_shows_in_the_message(number: int, code: str) -> None:
    err = error_for(number, r"opening \\files\gold\a.vhdx", share="x")
    assert err.code == code
    assert str(err).startswith(r"opening \\files\gold\a.vhdx: ")
    assert f"0x{number:08X}" in str(err)
    assert err.fields == {"status": f"0x{number:08X}", "share": "x"}
    assert err.fix


@pytest.mark.parametrize("number", RETRIED, ids=hex)
def test_what_passes_by_itself_is_retryable(number: int) -> None:
    assert isinstance(error_for(number, "x"), Retryable)


@pytest.mark.parametrize("number", NEVER_RETRIED, ids=hex)
def test_a_refused_logon_is_never_repeated_because_that_locks_accounts(number: int) -> None:
    assert isinstance(error_for(number, "x"), NeedsOperator)


def test_an_unknown_status_is_permanent() -> None:
    assert isinstance(error_for(0xC0FFEE00, "x"), Permanent)


def test_every_entry_is_an_error_with_words() -> None:
    for number, (cls, words) in TABLE.items():
        assert number >= 0x80000000
        assert issubclass(cls, AgentError)
        assert words
