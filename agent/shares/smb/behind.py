"""SMB write-behind: the WRITEs of one file that the server has not acknowledged, and what it has acknowledged but not
flushed. Sends and remembers; when to begin anew on another link is the file's business (agent.shares.smb.newfile).

A piece is copied into a buffer of ours, so that the writer gets its own back at once, and encrypted there; it is
decrypted when it has to be sent again over another connection, which has other keys. Of what is acknowledged only
place and checksum stay: a server that lost its power has lost it too, and that must be found out before going on.
"""

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from isal import isal_zlib

from agent.shares.smb import status, wire
from agent.shares.smb.link import Link
from agent.shares.smb.seal import HEADER_SIZE, Sealer
from agent.shares.smb.ticket import AnswerTimeout, Ticket
from agent.shares.smb.window import EXHAUSTED, Depth
from agent.shares.smb.wire import Refused
from imaging.units import KiB

_SLICE = 1.0  # Seconds between two looks at whether the link still lives.
_MOST_SPARE = 8
_AT_HAND = 256 * KiB
"""What is copied at a time, so that its checksum is computed while it is in the processor's cache."""


class Again(Exception):
    """Something on a link that still lives has to be sent again before anything else is."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the server acknowledged and has not flushed; `number` is that of its piece."""

    number: int
    offset: int
    length: int
    checksum: int


@dataclass(slots=True, eq=False)
class Piece:
    """One WRITE, being gathered or in flight.

    Attributes:
        offset: In the file.
        room: Its bytes, and place for more.
        length: How many there are.
        checksum: CRC-32 of the bytes.
        number: Counts the pieces in flight up; -1 while it is gathered.
        ticket: Of the time that it was sent last; with a nonce if `room` is encrypted.
        sealer: What encrypted it.
        is_lost: It has to be sent, or sent again.
        sending: Held by the one who sends it: a connection can end while it is being encrypted for that.
    """

    offset: int
    room: memoryview
    length: int = 0
    checksum: int = 0
    number: int = -1
    ticket: Ticket | None = None
    sealer: Sealer | None = None
    is_lost: bool = False
    sending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def end(self) -> int:
        """Where it ends in the file."""
        return self.offset + self.length

    @property
    def is_full(self) -> bool:
        """Whether there is no place for more."""
        return self.length == len(self.room)

    def append(self, data: memoryview) -> int:
        """Take as much of `data` as there is place for; return how much that was."""
        count = min(len(data), len(self.room) - self.length)
        for start in range(0, count, _AT_HAND):
            part = data[start : min(start + _AT_HAND, count)]
            self.room[self.length : self.length + len(part)] = part
            self.checksum = isal_zlib.crc32(part, self.checksum)
            self.length += len(part)
        return count

    def reveal(self) -> memoryview:
        """Return its bytes, decrypted."""
        data = self.room[: self.length]
        if self.ticket is not None and self.ticket.nonce and self.sealer is not None:
            self.sealer.reveal(self.ticket.nonce, HEADER_SIZE + wire.WRITE_BODY, data)
            self.ticket.nonce = b""
        return data


class WriteBehind:
    """The pieces of one file. Thread-safe.

    Writes of one thread that follow each other are gathered to one piece, for each WRITE costs both sides something.

    Attributes:
        written: Bytes that were acknowledged so far.
        sent_again: Bytes that had to be sent once more.
        unflushed: Bytes that were acknowledged and not flushed.
    """

    def __init__(
        self, depth: Depth, chunk: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with nothing.

        Args:
            depth: Decides how many pieces may be in flight.
            chunk: Bytes of one piece.
            clock: Monotonic seconds.
        """
        self.written = self.sent_again = self.unflushed = 0
        self._depth, self._chunk, self._clock = depth, chunk, clock
        self._changed = threading.Condition()
        self._open: dict[int, Piece] = {}
        self._flight: dict[int, Piece] = {}
        self._count = 0
        self._acknowledged: list[Written] = []
        self._ranges: list[tuple[int, int]] = []
        self._refusal: Refused | None = None
        self._spare: list[memoryview] = []

    # --- gathering --------------------------------------------------------------------------------

    def gather(self, offset: int, data: memoryview) -> list[Piece]:
        """Copy what this thread writes, and return the pieces that are ready to be sent."""
        ready: list[Piece] = []
        me = threading.get_ident()
        with self._changed:
            insort(self._ranges, (offset, offset + len(data)))
            while data:
                piece = self._open.pop(me, None)
                if piece is not None and piece.end != offset:
                    ready.append(piece)
                    piece = None
                if piece is None:
                    piece = Piece(offset, self._spare.pop() if self._spare else self._new_room())
                count = piece.append(data)
                offset, data = offset + count, data[count:]
                if piece.is_full:
                    ready.append(piece)
                else:
                    self._open[me] = piece
        return ready

    def gathered(self) -> list[Piece]:
        """Return what every thread has gathered; it is gathered no further."""
        with self._changed:
            pieces = list(self._open.values())
            self._open.clear()
            return pieces

    def _new_room(self) -> memoryview:
        return memoryview(bytearray(self._chunk))

    # --- sending ----------------------------------------------------------------------------------

    def launch(self, link: Link, file_id: bytes, piece: Piece) -> None:
        """Send a piece as soon as there is room for it; if this raises before that, `keep` it.

        Raises:
            Refused: The server refused an earlier piece.
            Again: Call `resend` first.
            The errors of `StrictConnection.post`: the link is lost.
        """
        with self._changed:
            if piece.number >= 0:
                return  # Before the link was lost: `resend` has sent it.
            self._wait(link, lambda: len(self._flight) < self._depth.value)
            self._enter(piece)
        self._post(link, file_id, piece)

    def keep(self, pieces: Iterable[Piece]) -> None:
        """Hold pieces that could not be launched: their writers believe that we have them. `resend` sends them."""
        with self._changed:
            for piece in pieces:
                if piece.number < 0:
                    self._enter(piece)
                    piece.is_lost = True

    def resend(self, link: Link, file_id: bytes) -> None:
        """Send what was lost again, over this link. One thread at a time."""
        with self._changed:
            lost = self._lost()
            if lost:
                self._refusal = None  # Of one of these: whether it still holds will be seen.
        for piece in lost:
            if piece.ticket is not None:
                self.sent_again += piece.length
            self._post(link, file_id, piece)

    def _enter(self, piece: Piece) -> None:
        piece.number = self._count
        self._flight[piece.number] = piece
        self._count += 1

    def _post(self, link: Link, file_id: bytes, piece: Piece) -> None:
        """Sign or encrypt a piece in place, and send it."""
        with piece.sending:
            data = piece.reveal()
            piece.is_lost = False
            ticket = Ticket(
                wire.WRITE, asked=piece.length, then=lambda ended: self._answered(piece, ended)
            )
            piece.ticket, piece.sealer = ticket, link.connection.sealer
            if len(self._flight) >= self._depth.value and piece.length == self._chunk:
                ticket.since = self._clock()
            ask = wire.ask_write(file_id, piece.offset, piece.length)
            link.connection.post(ask, ticket, data=data, text=data)

    def _answered(self, piece: Piece, ticket: Ticket) -> None:
        """Take the end of a WRITE; in the receiving thread, or in the one that could not send it."""
        with self._changed:
            head = ticket.head
            if head is None:
                piece.is_lost = True
            elif head.status != status.SUCCESS:
                piece.is_lost = True
                self._refusal = Refused(head.status)
                if head.status in EXHAUSTED:
                    self._depth.exhausted()
            elif ticket.count < piece.length:
                self._shorten(piece, ticket.count)
            else:
                self._acknowledge(piece.number, piece.offset, piece.length, piece.checksum)
                if ticket.since:
                    self._depth.answered(self._clock() - ticket.since)
                del self._flight[piece.number]
                self._recycle(piece)
            self._changed.notify_all()

    def _shorten(self, piece: Piece, done: int) -> None:
        """The server wrote a part: its disk is full, and the rest, sent again, will tell."""
        data = piece.reveal()
        self._acknowledge(piece.number, piece.offset, done, isal_zlib.crc32(data[:done]))
        piece.room, piece.offset, piece.length = data[done:], piece.offset + done, len(data) - done
        piece.checksum = isal_zlib.crc32(piece.room)
        piece.is_lost = True

    def _acknowledge(self, number: int, offset: int, length: int, checksum: int) -> None:
        self._acknowledged.append(Written(number, offset, length, checksum))
        self.written += length
        self.unflushed += length

    def _recycle(self, piece: Piece) -> None:
        if len(piece.room) == self._chunk and len(self._spare) < _MOST_SPARE:
            self._spare.append(piece.room)

    # --- waiting ----------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return a number that is larger than that of every piece so far."""
        with self._changed:
            return self._count

    def drain(self, link: Link, upto: int) -> None:
        """Wait until every piece below the mark `upto` is acknowledged.

        Raises:
            Refused, Again, SMBConnectionClosed, Tampered: As `launch`; AnswerTimeout.
        """
        with self._changed:
            self._wait(link, lambda: min(self._flight, default=upto) >= upto)

    def flushed(self, upto: int) -> None:
        """Forget what a FLUSH that followed the acknowledgement of everything below `upto` made durable."""
        with self._changed:
            self._acknowledged = [one for one in self._acknowledged if one.number >= upto]
            self.unflushed = sum(one.length for one in self._acknowledged)
            ranges = [(one.offset, one.offset + one.length) for one in self._acknowledged]
            ranges += [(p.offset, p.end) for p in (*self._flight.values(), *self._open.values())]
            self._ranges = sorted(ranges)

    def acknowledged(self) -> list[Written]:
        """Return what was acknowledged and not flushed."""
        with self._changed:
            return list(self._acknowledged)

    def overlaps(self, offset: int, length: int) -> bool:
        """Whether some of a range was written since the last flush: the server may reorder writes."""
        with self._changed:
            at = bisect_left(self._ranges, (offset, 0))
            before = at > 0 and self._ranges[at - 1][1] > offset
            return before or (at < len(self._ranges) and self._ranges[at][0] < offset + length)

    def _wait(self, link: Link, settled: Callable[[], bool]) -> None:
        """Wait for something, or raise what keeps it from coming true. The lock is held."""

        def is_over() -> bool:
            troubled = self._refusal is not None or not link.alive or bool(self._lost())
            return troubled or settled()

        limit = link.connection.answer_timeout
        written, deadline = self.written, self._clock() + limit
        while not self._changed.wait_for(is_over, min(_SLICE, limit)):
            if self.written != written:
                written, deadline = self.written, self._clock() + limit
            elif self._clock() >= deadline:
                raise AnswerTimeout("the server does not answer a write in time")
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        link.connection.require_alive()
        if self._lost():
            raise Again

    def _lost(self) -> list[Piece]:
        return [piece for piece in self._flight.values() if piece.is_lost]
