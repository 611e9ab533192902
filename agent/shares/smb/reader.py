"""SMB reader: fill one buffer from an open file with several READs in flight. Retries nothing; a lost link is the
caller's business (agent.shares.smb.recovery).

Several readers may share a link: `link.slots` bounds the READs in flight over all of them, so memory is bounded by
the policy and not by the callers. A reader that holds slots never blocks on another one: it collects its own first.
"""

from collections import deque
from dataclasses import dataclass

from agent.shares.smb import wire
from agent.shares.smb.link import Link
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.translate import WIRE_ERRORS
from agent.shares.smb.wire import Refused
from imaging.units import MiB

PIECES = 2
"""READs that a large read is split into at least, if nobody else reads."""

SMALLEST_PIECE = 2 * MiB


@dataclass(frozen=True, slots=True)
class _Part:
    """One READ in flight."""

    ticket: Ticket
    offset: int
    view: memoryview


def read_range(link: Link, file_id: bytes, offset: int, buffer: memoryview) -> None:
    """Fill `buffer` with the bytes at `offset` of an open file.

    Raises:
        Refused: The server's status; END_OF_FILE if the file is shorter.
        The errors of `StrictConnection.collect`: the link was lost, and is given up.
        In any case nothing of this read is in flight afterwards.
    """
    flight: deque[_Part] = deque()
    piece = _piece(link, len(buffer))
    todo = deque(
        (offset + start, buffer[start : start + piece]) for start in range(0, len(buffer), piece)
    )
    try:
        while todo or flight:
            while todo and link.slots.take(wait=not flight):
                flight.append(_send(link, file_id, *todo.popleft()))
            rest = _collect(link, flight[0])
            flight.popleft()
            if rest is not None:
                todo.appendleft(rest)
    except Refused:
        _abandon(link, flight)
        raise
    except BaseException:
        if flight:
            link.connection.give_up()  # No answer may reach the buffer any more.
        raise


def _piece(link: Link, length: int) -> int:
    """Return the size of one READ: large, for each costs us a tenth of a millisecond, but several in flight."""
    if link.slots.is_busy:
        return int(link.chunk)
    wanted = max(SMALLEST_PIECE, -(-length // PIECES // SMALLEST_PIECE) * SMALLEST_PIECE)
    return int(min(link.chunk, wanted))


def _send(link: Link, file_id: bytes, offset: int, view: memoryview) -> _Part:
    """Put one READ on the wire."""
    ticket = Ticket(wire.READ, asked=len(view), view=view, then=link.slots.give_back)
    if len(view) >= SMALLEST_PIECE:
        link.slots.measure(ticket)
    ask = wire.ask_read(file_id, offset, len(view))
    link.connection.post(ask, ticket)
    return _Part(ticket, offset, view)


def _collect(link: Link, part: _Part) -> tuple[int, memoryview] | None:
    """Wait for one READ; return what is still missing of it, if anything."""
    count = link.connection.collect(part.ticket)
    if count == len(part.view):
        return None
    return part.offset + count, part.view[count:]


def _abandon(link: Link, flight: deque[_Part]) -> None:
    """Wait for READs that nobody needs any more, the failed one first: their answers must not reach our buffer."""
    for part in flight:
        try:
            link.connection.collect(part.ticket)
        except Refused:
            continue
        except WIRE_ERRORS:
            link.connection.give_up()
            return
