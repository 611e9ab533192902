r"""SMB wire: READ, WRITE and FLUSH as bytes, both ways. Sans-I/O; knows nothing of keys, credits or sockets.

Everything else that is asked of a server goes through smbprotocol's own structures (agent.shares.smb.calls); these
three carry the data. [MS-SMB2] 2.2.1.2 (header), 2.2.17 to 2.2.22.
"""

import struct
from dataclasses import dataclass

from agent.shares.smb.seal import FLAG_SIGNED, HEADER_SIZE, Tampered
from imaging.units import KiB

FLUSH, READ, WRITE = 7, 8, 9
"""Command codes."""

CREDIT_BYTES = 64 * KiB
"""What one credit pays for ([MS-SMB2] 3.1.5.2)."""

READ_HEAD = HEADER_SIZE + 16
"""Bytes before the data of a READ's answer, as every server known sends it."""

_HEADER = struct.Struct("<4sHHIHHIIQIIQ16x")
_READ_REQUEST = struct.Struct("<HBBIQ16sIIIHHB")
_READ_ANSWER = struct.Struct("<HBxI8x")
_WRITE_REQUEST = struct.Struct("<HHIQ16sIIHHI")
_WRITE_ANSWER = struct.Struct("<HHI8x")
_FLUSH_REQUEST = struct.Struct("<HHI16s")

WRITE_BODY = _WRITE_REQUEST.size
"""Bytes between the header and the data of a WRITE."""

_WRITE_DATA_OFFSET = HEADER_SIZE + WRITE_BODY


@dataclass(frozen=True, slots=True)
class Ask:
    """A request without its header.

    Attributes:
        command: READ, WRITE or FLUSH.
        body: What follows the header, without the data of a WRITE.
        charge: Credits that it costs.
    """

    command: int
    body: bytes
    charge: int


class Refused(Exception):
    """The server answered with a status that is no success.

    Attributes:
        status: NTSTATUS.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status 0x{status:08X}")
        self.status = status


def ask_read(file_id: bytes, offset: int, length: int) -> Ask:
    """Ask for `length` bytes at `offset` of an open file; the data shall lie 80 bytes behind the header's start."""
    body = _READ_REQUEST.pack(49, READ_HEAD, 0, length, offset, file_id, 0, 0, 0, 0, 0, 0)
    return Ask(READ, body, charge(length))


def ask_write(file_id: bytes, offset: int, length: int) -> Ask:
    """Announce `length` bytes for `offset` of an open file; they follow the body."""
    body = _WRITE_REQUEST.pack(49, _WRITE_DATA_OFFSET, length, offset, file_id, 0, 0, 0, 0, 0)
    return Ask(WRITE, body, charge(length))


def ask_flush(file_id: bytes) -> Ask:
    """Ask that everything written to an open file so far survives power loss."""
    return Ask(FLUSH, _FLUSH_REQUEST.pack(24, 0, 0, file_id), 1)


def charge(length: int) -> int:
    """Return the credits that a payload of `length` bytes costs."""
    return max(1, -(-length // CREDIT_BYTES))


def build_head(
    ask: Ask, *, message_id: int, session_id: int, tree_id: int, is_signed: bool, is_multi: bool
) -> bytearray:
    """Return header and body; the signature's 16 bytes at 48 are zero.

    Args:
        ask: What is asked.
        message_id: Its first id; it uses as many as it costs credits.
        session_id: Of the logon.
        tree_id: Of the share.
        is_signed: Whether a signature will be filled in.
        is_multi: Whether the dialect counts credits by size; if not, the charge field is reserved.
    """
    flags = FLAG_SIGNED if is_signed else 0
    cost = ask.charge if is_multi else 0
    head = _HEADER.pack(
        b"\xfeSMB", HEADER_SIZE, cost, 0, ask.command, ask.charge, flags, 0,
        message_id, 0, tree_id, session_id,
    )  # fmt: skip
    return bytearray(head + ask.body)


def is_usual_read(message: bytes | memoryview, size: int, asked: int) -> bool:
    """Whether a READ's answer has its data right behind its head and nothing else.

    Args:
        message: The answer's first `READ_HEAD` bytes, or more.
        size: Of the whole answer.
        asked: Bytes that were asked for.
    """
    _, offset, length = _READ_ANSWER.unpack_from(message, HEADER_SIZE)
    return bool(offset == READ_HEAD and length == size - READ_HEAD and 0 < length <= asked)


def parse_read(message: memoryview, *, asked: int) -> memoryview:
    """Return the data inside a READ's answer; offsets and lengths in it are not trusted.

    Raises:
        Tampered: They lie outside of the answer, or are more than was asked for.
    """
    if len(message) < READ_HEAD + 1:
        raise Tampered(f"an answer to a read of {len(message) - HEADER_SIZE} bytes")
    _, start, length = _READ_ANSWER.unpack_from(message, HEADER_SIZE)
    if start < READ_HEAD or not 0 < length <= asked or start + length > len(message):
        raise Tampered(f"an answer to a read of {asked} bytes with {length} at offset {start}")
    return message[start : start + length]


def parse_write(message: memoryview, *, asked: int) -> int:
    """Return the bytes that a WRITE wrote; a disk that fills up makes it fewer than asked for.

    Raises:
        Tampered: No such answer, or nothing, or more than was asked for.
    """
    if len(message) < HEADER_SIZE + _WRITE_ANSWER.size:
        raise Tampered(f"an answer to a write of {len(message) - HEADER_SIZE} bytes")
    _, _, count = _WRITE_ANSWER.unpack_from(message, HEADER_SIZE)
    if not 0 < count <= asked:
        raise Tampered(f"an answer to a write of {asked} bytes that claims {count}")
    return int(count)
