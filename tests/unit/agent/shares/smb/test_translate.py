"""What the library and the socket raise becomes one of our errors, and says where."""

import struct

import pytest
from smbprotocol.exceptions import (
    AccessDenied,
    SMBAuthenticationError,
    SMBConnectionClosed,
    SMBException,
)

from agent.shares.errors import FileChanged
from agent.shares.smb.seal import Tampered
from agent.shares.smb.ticket import AnswerTimeout
from agent.shares.smb.translate import WIRE_ERRORS, translate


@pytest.mark.parametrize(
    ("err", "code"),
    [
        (AccessDenied(), "share.access-denied"),
        (Tampered("x"), "share.security"),
        (AnswerTimeout("x"), "share.timeout"),
        (TimeoutError("x"), "share.timeout"),
        (SMBConnectionClosed("x"), "share.disconnected"),
        (OSError(9, "Bad file descriptor"), "share.disconnected"),
        (BrokenPipeError(), "share.disconnected"),
        (SMBAuthenticationError("x"), "share.logon-failed"),
        (SMBException("x"), "share.refused"),
        (ValueError("x"), "share.refused"),
        (KeyError("x"), "share.refused"),
        (struct.error("x"), "share.refused"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_every_wire_error_has_a_code_and_its_place(err: Exception, code: str) -> None:
    assert isinstance(err, WIRE_ERRORS)
    meaning = translate(err, r"reading \\files\gold\a.vhdx at 4096", share="gold")
    assert meaning.code == code
    assert str(meaning).startswith(r"reading \\files\gold\a.vhdx at 4096: ")
    assert meaning.fields["share"] == "gold"


def test_our_own_errors_pass_as_they_are() -> None:
    ours = FileChanged("x")
    assert translate(ours, "reading") is ours


def test_a_failed_logon_does_not_repeat_what_the_mechanism_said() -> None:
    meaning = translate(SMBAuthenticationError("password was hunter2"), "logging on")
    assert "hunter2" not in str(meaning)
