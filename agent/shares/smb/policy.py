"""SMB policy: how much protection a share must offer and how long anything may take. Values only, no I/O.

Every default is the strict one; a weaker value is a decision of the share's configuration, never of the server.
Signing has no switch: what is not encrypted is signed.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from imaging.units import MiB


class Dialect(IntEnum):
    """The oldest dialect that is accepted ([MS-SMB2] 2.2.3); 3.1.1 alone protects its own negotiation."""

    SMB_3_0_2 = 0x0302
    SMB_3_1_1 = 0x0311


class Encryption(Enum):
    """Whether the bytes on the wire must be encrypted."""

    REQUIRE = "require"
    PREFER = "prefer"
    """Encrypt where the server can, else sign."""
    OFF = "off"
    """Sign only, unless the server itself insists on encryption."""


class AuthKind(Enum):
    """How the user proves who he is; the values are those of pyspnego."""

    NEGOTIATE = "negotiate"
    NTLM = "ntlm"
    KERBEROS = "kerberos"


@dataclass(frozen=True, slots=True)
class SmbPolicy:
    """What one share's connection must be like. Times in seconds.

    Reading takes no memory of its own, data go straight into the caller's buffers.

    Attributes:
        encryption: Whether encryption is a must.
        oldest_dialect: Older servers are refused.
        auth: Logon mechanism; NEGOTIATE takes Kerberos where it can be had, else NTLMv2.
        connect_timeout: For TCP and for each step of the logon.
        answer_timeout: For each request; a CREATE may wait 35 s for another client's oplock, so not less than 40.
        reconnect_for: How long a lost server is waited for before the error reaches the job.
        busy_for: How long a file that others hold open is waited for.
        backoff_base: First pause is random in [0, base], doubled each time.
        backoff_cap: Longest pause.
        keepalive: Idle time before an ECHO (firewalls forget a flow after 4 min, Windows after 15).
        chunk: Bytes of one READ at most.
        write_chunk: Bytes of one WRITE.
        depth: READs in flight on one connection, over all threads: where it begins, and the most.
        connections: For reading one share; a second one is made when two threads read at the same time.
        write_depth: WRITEs of one file in flight: where it begins, and the most, for servers that are far away. Each
            holds `write_chunk` bytes of memory, and each thread that writes gathers one more.
    """

    encryption: Encryption = Encryption.REQUIRE
    oldest_dialect: Dialect = Dialect.SMB_3_1_1
    auth: AuthKind = AuthKind.NEGOTIATE
    connect_timeout: float = 15.0
    answer_timeout: float = 60.0
    reconnect_for: float = 120.0
    busy_for: float = 90.0
    backoff_base: float = 0.1
    backoff_cap: float = 5.0
    keepalive: float = 60.0
    chunk: int = 4 * MiB
    write_chunk: int = 4 * MiB
    depth: tuple[int, int] = (4, 32)
    connections: int = 2
    write_depth: tuple[int, int] = (3, 8)
