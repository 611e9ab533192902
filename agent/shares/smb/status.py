"""SMB status: the table from NTSTATUS numbers to the agent's errors. Decides on the integer only, never on text.

Numbers: [MS-ERREF] 2.3.1. Which are worth another try was measured against Samba 4.17 where it can be provoked.
"""

from agent.errors import AgentError
from agent.shares.errors import (
    AccessDenied,
    AccountDisabled,
    AlreadyThere,
    ClockSkew,
    FileChanged,
    InUse,
    LogonFailed,
    NoSuchShare,
    NotAFile,
    NotFound,
    PasswordExpired,
    SecurityRefused,
    ShareBusy,
    ShareDisconnected,
    ShareFull,
    ShareRefused,
    ShareTimeout,
)

SUCCESS = 0x00000000
PENDING = 0x00000103
BUFFER_OVERFLOW = 0x80000005
NO_MORE_FILES = 0x80000006
MORE_PROCESSING_REQUIRED = 0xC0000016
INVALID_PARAMETER = 0xC000000D
INVALID_DEVICE_REQUEST = 0xC0000010
BUFFER_TOO_SMALL = 0xC0000023
NOT_SUPPORTED = 0xC00000BB
INSUFFICIENT_RESOURCES = 0xC000009A
REQUEST_NOT_ACCEPTED = 0xC00000D0
NAME_COLLISION = 0xC0000035

NOT_THERE = frozenset([0xC000000F, 0xC0000034, 0xC000003A, 0xC0000225])
"""There is no file of that name, or no folder."""

CANNOT = frozenset([INVALID_DEVICE_REQUEST, NOT_SUPPORTED, INVALID_PARAMETER])
"""The server or its file system does not have what was asked for."""

TABLE: dict[int, tuple[type[AgentError], str]] = {
    0x8000002D: (ShareRefused, "the path leads through a symbolic link, which is not followed"),
    0xC000000F: (NotFound, "no such file"),
    0xC0000011: (FileChanged, "the file ends before the bytes that were asked for"),
    0xC0000017: (ShareBusy, "the server is out of memory, or is just starting"),
    0xC0000022: (AccessDenied, "access denied"),
    0xC0000033: (NotFound, "the server does not allow this name"),
    0xC0000034: (NotFound, "no such file"),
    NAME_COLLISION: (AlreadyThere, "there is a file of that name"),
    0xC0000039: (NotFound, "the server does not allow this path"),
    0xC000003A: (NotFound, "no such folder"),
    0xC000003B: (NotFound, "the server does not allow this path"),
    0xC0000043: (InUse, "somebody has the file open for writing"),
    0xC0000044: (ShareFull, "the user's quota is used up"),
    0xC0000054: (InUse, "somebody locked this part of the file"),
    0xC0000055: (InUse, "somebody locked this part of the file"),
    0xC0000056: (NotFound, "the file is being deleted"),
    0xC000005E: (ShareBusy, "no logon server answers the file server"),
    0xC0000064: (LogonFailed, "no such user"),
    0xC000006A: (LogonFailed, "wrong password"),
    0xC000006D: (LogonFailed, "wrong user name or password"),
    0xC000006E: (AccountDisabled, "the account is restricted"),
    0xC000006F: (AccountDisabled, "the account may not log on at this hour"),
    0xC0000070: (AccountDisabled, "the account may not log on from this machine"),
    0xC0000071: (PasswordExpired, "the password has expired"),
    0xC0000072: (AccountDisabled, "the account is disabled"),
    0xC000007F: (ShareFull, "the disk is full"),
    INSUFFICIENT_RESOURCES: (ShareBusy, "the server is out of resources"),
    0xC000009D: (ShareDisconnected, "the server's device is not connected"),
    0xC00000B5: (ShareTimeout, "the server's storage did not answer in time"),
    0xC00000BA: (NotAFile, "this is a folder"),
    NOT_SUPPORTED: (ShareRefused, "the server does not support this"),
    0xC00000C9: (ShareDisconnected, "the server withdrew the share"),
    0xC00000CA: (AccessDenied, "the share is of another type"),
    0xC00000CC: (NoSuchShare, "no such share"),
    REQUEST_NOT_ACCEPTED: (ShareBusy, "the server takes no more requests"),
    0xC00000E5: (ShareBusy, "the server failed inside"),
    0xC0000103: (NotAFile, "this is no folder"),
    0xC0000120: (ShareDisconnected, "the server cancelled the request"),
    0xC0000128: (ShareDisconnected, "the server closed the file"),
    0xC000015B: (AccountDisabled, "the account may not log on over the network"),
    0xC0000133: (ClockSkew, "the clocks differ too much"),
    0xC0000193: (AccountDisabled, "the account has expired"),
    0xC0000203: (ShareDisconnected, "the server deleted the session"),
    0xC0000205: (ShareBusy, "the server is out of resources"),
    0xC000020C: (ShareDisconnected, "the server ended the connection"),
    0xC000020D: (ShareDisconnected, "the server reset the connection"),
    0xC0000224: (PasswordExpired, "the password must be changed first"),
    0xC0000225: (NotFound, "no such file"),
    0xC0000234: (AccountDisabled, "the account is locked out"),
    0xC0000257: (NotFound, "the path is in another DFS target, which is not followed"),
    0xC000035C: (ShareDisconnected, "the session expired"),
    0xC000035D: (ShareDisconnected, "the server ended the connection"),
    0xC0000466: (ShareDisconnected, "the server is not available"),
    0xC000A000: (SecurityRefused, "the server could not verify our signature"),
}


def error_for(status: int, doing: str, **fields: object) -> AgentError:
    """Return the error that `status` means.

    Args:
        status: NTSTATUS of the answer.
        doing: What was tried and where, as the head of the message.
        **fields: Facts for the log.
    """
    cls, why = TABLE.get(status, (ShareRefused, "the server refused"))
    return cls(f"{doing}: {why} (status 0x{status:08X})", status=f"0x{status:08X}", **fields)
