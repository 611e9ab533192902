"""SMB inbound: one frame from the socket to what it means. Data of a READ go straight into the buffer of whoever
asked, 512 KiB at a time, so that they are checked and decrypted while the processor still has them at hand.

What lies in a buffer is believed by nobody before its frame is checked to the end; a frame that fails ends the
connection, and with it every request on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.shares.smb import seal, status, wire
from agent.shares.smb.seal import TRANSFORM_SIZE, Head, Keys, Tampered
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.transport import StrictTransport
from imaging.units import KiB

_START = TRANSFORM_SIZE + wire.READ_HEAD + 4
"""Bytes that are received first: an encrypted answer to a WRITE as a whole, or all that tells where data go."""

_PIECE = 512 * KiB


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        head: Its header.
        message: All of it; of a READ whose data went to `ticket` only what precedes them.
        ticket: The READ that was filled, checked to the end; None for everything else.
        was_sealed: Whether it came encrypted. If not, nothing of `message` is checked unless there is a `ticket`.
    """

    head: Head
    message: memoryview
    ticket: Ticket | None
    was_sealed: bool


class Inbound:
    """The receiving half of one connection; one thread.

    Attributes:
        keys: Of the session; None before the logon.
        must_be_sealed: Whether a plain answer is an attack.
    """

    def __init__(self, transport: StrictTransport, tickets: Mapping[int, Ticket]) -> None:
        self.keys: Keys | None = None
        self.must_be_sealed = True
        self._transport = transport
        self._tickets = tickets
        self._start = bytearray(_START)
        self._text = memoryview(bytearray(_PIECE))

    def take(self, size: int) -> Answer | None:
        """Receive the frame whose length just came; None if the stream ended inside of it.

        Raises:
            Tampered: It is not what an honest server would send.
            OSError: The connection broke.
        """
        start = memoryview(self._start)[: min(size, _START)]
        if not self._transport.fill(start):
            return None
        if seal.is_sealed(start):
            return self._take_sealed(start, size)
        return self._take_plain(start, size)

    # --- encrypted --------------------------------------------------------------------------------

    def _take_sealed(self, start: memoryview, size: int) -> Answer | None:
        if self.keys is None:
            raise Tampered("an encrypted frame before the logon")
        if not self.keys.streams:
            frame = self._whole(start, size)
            return (
                None
                if frame is None
                else _whole_answer(seal.open_sealed(frame, self.keys), was_sealed=True)
            )
        opener = seal.Opener(start, size, self.keys)
        first = memoryview(bytearray(len(start) - TRANSFORM_SIZE))
        opener.update_into(start[TRANSFORM_SIZE:], first)
        ticket = self._reader_of(first, size - TRANSFORM_SIZE)
        if ticket is None or ticket.view is None:
            return self._take_sealed_message(first, size, opener)
        length = size - TRANSFORM_SIZE - wire.READ_HEAD
        if not self._decrypt(ticket.view[:length], first[wire.READ_HEAD :], opener):
            return None
        opener.finish()
        return _filled(seal.parse_head(first), first, ticket, length, was_sealed=True)

    def _take_sealed_message(
        self, first: memoryview, size: int, opener: seal.Opener
    ) -> Answer | None:
        message = memoryview(bytearray(size - TRANSFORM_SIZE))
        if not self._decrypt(message, first, opener):
            return None
        opener.finish()
        return _whole_answer(message, was_sealed=True)

    def _decrypt(self, out: memoryview, first: memoryview, opener: seal.Opener) -> bool:
        """Fill `out` with what is decrypted already and with what still comes."""
        out[: len(first)] = first
        for begin in range(len(first), len(out), _PIECE):
            piece = out[begin : begin + _PIECE]
            text = self._text[: len(piece)]
            if not self._transport.fill(text):
                return False
            opener.update_into(text, piece)
        return True

    # --- plain ------------------------------------------------------------------------------------

    def _take_plain(self, start: memoryview, size: int) -> Answer | None:
        keys = self.keys
        ticket = None if keys is None or self.must_be_sealed else self._reader_of(start, size)
        if ticket is None or ticket.view is None or keys is None:
            frame = self._whole(start, size)
            return None if frame is None else _whole_answer(frame, was_sealed=False)
        head = seal.parse_head(start)
        if head.session_id != keys.session_id:
            raise Tampered("an answer for another session")
        mac = seal.begin_verify(start, head, keys)
        out = ticket.view[: size - wire.READ_HEAD]
        known = len(start) - wire.READ_HEAD
        out[:known] = start[wire.READ_HEAD :]
        for begin in range(known, len(out), _PIECE):
            piece = out[begin : begin + _PIECE]
            if not self._transport.fill(piece):
                return None
            mac.update(piece)
        seal.finish_verify(mac, head)
        return _filled(head, start, ticket, len(out), was_sealed=False)

    # --- both -------------------------------------------------------------------------------------

    def _reader_of(self, first: memoryview, size: int) -> Ticket | None:
        """Return the READ whose data follow `first`; None for every other answer of `size` bytes."""
        if size <= wire.READ_HEAD or len(first) <= wire.READ_HEAD:
            return None
        head = seal.parse_head(first)
        ticket = self._tickets.get(head.message_id)
        if head.command != wire.READ or head.status != status.SUCCESS:
            return None
        if ticket is None or ticket.view is None or ticket.command != wire.READ:
            return None
        return ticket if wire.is_usual_read(first, size, ticket.asked) else None

    def _whole(self, start: memoryview, size: int) -> memoryview | None:
        frame = memoryview(bytearray(size))
        frame[: len(start)] = start
        return frame if self._transport.fill(frame[len(start) :]) else None


def _filled(
    head: Head, first: memoryview, ticket: Ticket, count: int, *, was_sealed: bool
) -> Answer:
    ticket.count = count
    return Answer(head, first[: wire.READ_HEAD], ticket, was_sealed)


def _whole_answer(message: memoryview, *, was_sealed: bool) -> Answer:
    return Answer(seal.parse_head(message), message, None, was_sealed)


def take_data(ticket: Ticket, message: memoryview) -> int:
    """Return the bytes that an answer is about; those of a READ are copied to where they belong."""
    if ticket.command == wire.WRITE:
        return wire.parse_write(message, asked=ticket.asked)
    if ticket.view is None:
        return 0
    data = wire.parse_read(message, asked=ticket.asked)
    ticket.view[: len(data)] = data
    return len(data)
