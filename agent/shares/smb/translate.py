"""SMB exceptions -> agent errors: the boundary that nothing of smbprotocol, pyspnego or the socket layer passes."""

import struct

from smbprotocol.exceptions import (
    SMBAuthenticationError,
    SMBConnectionClosed,
    SMBException,
    SMBResponseException,
)

from agent.errors import AgentError
from agent.shares.errors import (
    LogonFailed,
    SecurityRefused,
    ShareDisconnected,
    ShareRefused,
    ShareTimeout,
)
from agent.shares.smb.seal import Tampered
from agent.shares.smb.status import error_for
from agent.shares.smb.ticket import AnswerTimeout
from agent.shares.smb.wire import Refused

WIRE_ERRORS = (SMBException, Refused, OSError, Tampered, ValueError, LookupError, struct.error)
"""Everything that a request may raise besides our own errors; the last three when the library cannot parse an
answer (it checks little)."""


_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[AgentError], str], ...] = (
    ((Tampered,), SecurityRefused, "received {}"),
    ((AnswerTimeout, TimeoutError), ShareTimeout, "{}"),
    ((SMBConnectionClosed, OSError), ShareDisconnected, "the connection was lost ({})"),
    ((SMBAuthenticationError,), LogonFailed, "no logon mechanism accepts this user"),
    ((SMBException,), ShareRefused, "{}"),
)
"""First match wins."""


def translate(err: Exception, doing: str, **fields: str) -> AgentError:
    """Return what `err` means to the agent.

    Args:
        err: What a call into the library or the socket raised.
        doing: What was tried and where, as the head of the message.
        **fields: Facts for the log.
    """
    if isinstance(err, AgentError):
        return err
    if isinstance(err, (SMBResponseException, Refused)):
        return error_for(err.status, doing, **fields)
    for kinds, cls, words in _MEANINGS:
        if isinstance(err, kinds):
            return cls(f"{doing}: {words.format(err)}", **fields)
    return ShareRefused(f"{doing}: the server's answer cannot be understood", **fields)
