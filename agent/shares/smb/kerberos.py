"""SMB logon by Kerberos: from the library's numbers to the agent's errors. Decides on numbers only, never on text.

MIT krb5's error table begins at -1765328384; the offset in it is the protocol's own number (RFC 4120 section 7.5.9).
"""

from collections.abc import Iterator

from agent.errors import AgentError
from agent.shares.errors import (
    AccountDisabled,
    ClockSkew,
    KdcUnreachable,
    LogonFailed,
    PasswordExpired,
    SecurityRefused,
)

_BASE = -1765328384

_MEANINGS: dict[int, tuple[type[AgentError], str]] = {
    6: (LogonFailed, "the realm knows no such user"),
    7: (LogonFailed, "the realm knows no such file server (its name, or its service cifs/NAME)"),
    12: (LogonFailed, "the realm's policy refuses this logon"),
    14: (SecurityRefused, "the realm offers no cipher that this machine accepts"),
    18: (AccountDisabled, "the account is disabled or locked"),
    23: (PasswordExpired, "the password has expired"),
    24: (LogonFailed, "wrong password"),
    31: (LogonFailed, "wrong password"),
    32: (ClockSkew, "a new ticket has expired already: the clocks differ"),
    33: (ClockSkew, "a new ticket is not valid yet: the clocks differ"),
    37: (ClockSkew, "this machine's clock and the realm's differ too much"),
    41: (SecurityRefused, "a Kerberos message was changed on the way"),
    135: (KdcUnreachable, "krb5.conf cannot be opened"),
    136: (KdcUnreachable, "krb5.conf cannot be understood"),
    154: (KdcUnreachable, "the realm is in no configuration and no DNS"),
    156: (KdcUnreachable, "no key distribution centre of the realm answers"),
    220: (KdcUnreachable, "no key distribution centre of the realm is known"),
}
"""Offset -> class and words; from 128 on they are MIT's own (krb5.h), before that RFC 4120's."""


def meaning_of(err: BaseException, doing: str, **fields: str) -> AgentError | None:
    """Return what a failed Kerberos logon means; None if it was something else.

    Args:
        err: What the logon raised, with its causes.
        doing: What was tried and where, as the head of the message.
        **fields: Facts for the log.
    """
    for number in _numbers(err):
        found = _MEANINGS.get(_offset(number))
        if found is not None:
            cls, words = found
            return cls(f"{doing}: {words} (Kerberos {number})", **fields)
    return None


def _offset(number: int) -> int:
    """Return the place in MIT's table, from a signed or an unsigned number."""
    return (number - _BASE) & 0xFFFFFFFF


def _numbers(err: BaseException | None) -> Iterator[int]:
    """Yield the numbers of an error and of everything that it was made from."""
    seen: set[int] = set()
    waiting = [err]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        for name in ("err_code", "min_code"):
            number = getattr(one, name, None)
            if isinstance(number, int):
                yield number
        waiting += [getattr(one, "base_error", None), one.__cause__, one.__context__]
