"""SMB reader: fill one buffer from an open file with several READs in flight. Retries nothing; a lost link is the
caller's business (agent.shares.smb.recovery).

Several readers may share a link: `link.slots` bounds the READs in flight over all of them, so memory is bounded by
the policy and not by the callers. A reader that holds slots never blocks on another one: it collects its own first.
"""

import struct
from collections import deque
from dataclasses import dataclass

from smbprotocol.open import SMB2ReadRequest

from agent.shares.smb.connection import AnswerTimeout
from agent.shares.smb.link import CREDIT_BYTES, Link
from agent.shares.smb.seal import HEADER_SIZE, Tampered
from agent.shares.smb.untyped import LibRequest

_READ_ANSWER = struct.Struct("<HBxI")
"""Structure size, data offset from the SMB2 header, data length ([MS-SMB2] 2.2.20)."""

_ANSWER_SIZE = 17
_FIRST_DATA_OFFSET = HEADER_SIZE + 16


@dataclass(frozen=True, slots=True)
class _Part:
    """One READ in flight."""

    request: LibRequest
    offset: int
    view: memoryview


def read_range(link: Link, file_id: bytes, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` with the bytes at `offset` of an open file.

    Raises:
        The library's errors; END_OF_FILE if the file is shorter. Nothing of this read is in flight afterwards,
        unless the link was lost.
    """
    flight: deque[_Part] = deque()
    todo = deque(
        (offset + start, buffer[start : start + link.chunk])
        for start in range(0, len(buffer), link.chunk)
    )
    try:
        while todo or flight:
            while todo and _take_slot(link, wait=not flight):
                flight.append(_send(link, file_id, *todo.popleft()))
            rest = _collect(link, flight.popleft())
            if rest is not None:
                todo.appendleft(rest)
    finally:
        _abandon(link, flight)


def _take_slot(link: Link, *, wait: bool) -> bool:
    """Get a permit for one more READ; only a reader with nothing in flight waits for it."""
    if not wait:
        return link.slots.acquire(blocking=False)
    if not link.slots.acquire(timeout=link.connection.answer_timeout):
        raise AnswerTimeout("the reads before this one do not end")
    return True


def _send(link: Link, file_id: bytes, offset: int, view: memoryview) -> _Part:
    """Put one READ on the wire; its slot is given back if that fails."""
    request = SMB2ReadRequest()
    request["length"] = len(view)
    request["offset"] = offset
    request["file_id"] = file_id
    request["padding"] = bytes([_FIRST_DATA_OFFSET])
    try:
        sent = link.connection.send_when_granted(
            request, charge=-(-len(view) // CREDIT_BYTES), sid=link.session_id, tid=link.tree_id
        )
    except BaseException:
        link.slots.release()
        raise
    return _Part(sent, offset, view)


def _collect(link: Link, part: _Part) -> tuple[int, memoryview] | None:
    """Wait for one READ and copy it; return what is still missing of it, if anything."""
    try:
        body = link.connection.receive_data(part.request)
    finally:
        link.slots.release()
    data = _data_of(body, asked=len(part.view))
    part.view[: len(data)] = data
    if len(data) == len(part.view):
        return None
    return part.offset + len(data), part.view[len(data) :]


def _data_of(body: memoryview, *, asked: int) -> memoryview:
    """Return the data inside a READ answer's body; offsets and lengths in it are not trusted."""
    if len(body) < _ANSWER_SIZE:
        raise Tampered(f"an answer to a read of {len(body)} bytes")
    _, data_offset, length = _READ_ANSWER.unpack_from(body)
    start = data_offset - HEADER_SIZE
    if start < _ANSWER_SIZE - 1 or not 0 < length <= asked or start + length > len(body):
        raise Tampered(
            f"an answer to a read of {asked} bytes with {length} at offset {data_offset}"
        )
    return body[start : start + length]


def _abandon(link: Link, flight: deque[_Part]) -> None:
    """Forget READs that nobody waits for any more; their answers still have to come in, or the link has to go."""
    for part in flight:
        try:
            link.connection.receive_data(part.request)
        except Exception:  # noqa: BLE001, S112 - the first error is on its way to the caller already
            continue
        finally:
            link.slots.release()
