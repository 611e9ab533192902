"""Pieces of a file in flight, against a link without a server: gathering, order, losses, short and refused writes."""

import random
import threading
from dataclasses import dataclass, field

import pytest
from smbprotocol.exceptions import SMBConnectionClosed

from agent.shares.smb import seal, status, wire
from agent.shares.smb.behind import Again, WriteBehind
from agent.shares.smb.seal import Keys, Sealer
from agent.shares.smb.ticket import AnswerTimeout, Ticket
from agent.shares.smb.window import Depth
from agent.shares.smb.wire import Ask, Refused

CHUNK = 1000
FULL = 0xC000007F
FILE_ID = b"f" * 16
KEYS = Keys(7, b"s" * 16, seal.GMAC_ID, 2, b"k" * 16, b"o" * 16)


@dataclass
class FakeConnection:
    """Keeps what was posted, until the test answers it."""

    sealer: Sealer | None = None
    alive: bool = True
    answer_timeout: float = 30.0
    posted: list[tuple[int, bytes, Ticket]] = field(default_factory=list)

    def post(self, ask: Ask, ticket: Ticket, *, data: memoryview, text: memoryview) -> None:
        if not self.alive:
            ticket.lose()
            raise SMBConnectionClosed("gone")
        plain = bytes(data)
        if self.sealer is not None:
            head = bytearray(bytes(64) + ask.body)
            _, ticket.nonce = self.sealer.seal(head, data, text)
        self.posted.append((int.from_bytes(ask.body[8:16], "little"), plain, ticket))

    def require_alive(self) -> None:
        if not self.alive:
            raise SMBConnectionClosed("gone")

    def answer(self, code: int = status.SUCCESS, count: int | None = None) -> None:
        """Answer the oldest."""
        _, data, ticket = self.posted.pop(0)
        head = seal.Head(code, wire.WRITE, 1, 1, 0, 0, b"")
        ticket.finish(head, (len(data) if count is None else count) if not code else 0)

    def end(self) -> None:
        self.alive = False
        for _, _, ticket in self.posted:
            ticket.lose()
        self.posted.clear()


@dataclass
class FakeLink:
    """What the pieces need of a link."""

    connection: FakeConnection

    @property
    def alive(self) -> bool:
        return self.connection.alive


def link(*, sealed: bool = False) -> FakeLink:
    return FakeLink(FakeConnection(Sealer(KEYS) if sealed else None))


def behind(depth: int = 3) -> WriteBehind:
    return WriteBehind(Depth(depth, depth), CHUNK)


def write(pieces: WriteBehind, to: FakeLink, offset: int, data: bytes) -> None:
    for piece in pieces.gather(offset, memoryview(data)):
        pieces.launch(to, FILE_ID, piece)  # type: ignore[arg-type]


def finish(pieces: WriteBehind, to: FakeLink) -> None:
    for piece in pieces.gathered():
        pieces.launch(to, FILE_ID, piece)  # type: ignore[arg-type]


def content(to: FakeLink) -> bytes:
    """What the file would be if everything that was posted was written."""
    made = bytearray()
    for offset, data, _ in to.connection.posted:
        made[offset : offset + len(data)] = data
    return bytes(made)


def test_writes_that_follow_each_other_become_one_piece() -> None:
    pieces, to = behind(), link()
    for start in range(0, 2500, 100):
        write(pieces, to, start, bytes([start // 100]) * 100)
    assert [len(data) for _, data, _ in to.connection.posted] == [CHUNK, CHUNK]
    finish(pieces, to)
    assert [len(data) for _, data, _ in to.connection.posted] == [CHUNK, CHUNK, 500]
    assert content(to) == b"".join(bytes([n]) * 100 for n in range(25))


def test_a_write_elsewhere_ends_a_piece() -> None:
    pieces, to = behind(), link()
    write(pieces, to, 0, b"a" * 10)
    write(pieces, to, 500, b"b" * 10)
    assert [(offset, data) for offset, data, _ in to.connection.posted] == [(0, b"a" * 10)]


def test_every_thread_gathers_for_itself() -> None:
    pieces, to = behind(), link()
    write(pieces, to, 0, b"a" * 10)
    other = threading.Thread(target=write, args=(pieces, to, 500, b"b" * 10))
    other.start()
    other.join()
    write(pieces, to, 10, b"c" * 10)
    assert to.connection.posted == []
    finish(pieces, to)
    assert sorted(data for _, data, _ in to.connection.posted) == [b"a" * 10 + b"c" * 10, b"b" * 10]


def test_ranges_written_since_the_last_flush_are_known() -> None:
    pieces, to = behind(8), link()
    write(pieces, to, 1000, b"x" * 1500)
    for offset, length, overlap in (
        (0, 1000, 0),
        (0, 1001, 1),
        (2499, 1, 1),
        (2500, 9, 0),
        (1200, 5, 1),
    ):
        assert pieces.overlaps(offset, length) == bool(overlap), (offset, length)
    finish(pieces, to)
    upto = pieces.mark()
    while to.connection.posted:
        to.connection.answer()
    assert pieces.overlaps(1000, 1)
    pieces.flushed(upto)
    assert not pieces.overlaps(0, 5000)


@pytest.mark.parametrize("sealed", [False, True], ids=["signed", "encrypted"])
def test_what_is_lost_is_sent_again_as_it_was(*, sealed: bool) -> None:
    data = random.Random(1).randbytes(2500)
    pieces, first, second = behind(), link(sealed=sealed), link(sealed=sealed)
    write(pieces, first, 0, data)
    finish(pieces, first)
    first.connection.answer()
    first.connection.end()
    pieces.resend(second, FILE_ID)  # type: ignore[arg-type]
    got = {offset: sent for offset, sent, _ in second.connection.posted}
    assert got == {1000: data[1000:2000], 2000: data[2000:]}
    assert pieces.sent_again == 1500
    second.connection.end()
    third = link(sealed=sealed)
    pieces.resend(third, FILE_ID)  # type: ignore[arg-type]
    assert {offset: sent for offset, sent, _ in third.connection.posted} == got
    third.connection.answer()
    third.connection.answer()
    pieces.drain(third, pieces.mark())  # type: ignore[arg-type]
    assert (pieces.written, pieces.unflushed) == (2500, 2500)


def test_a_piece_that_could_not_be_sent_is_not_lost() -> None:
    pieces, dead, alive = behind(), link(), link()
    ready = pieces.gather(0, memoryview(b"x" * CHUNK))
    dead.connection.end()
    with pytest.raises(SMBConnectionClosed):
        pieces.launch(dead, FILE_ID, ready[0])  # type: ignore[arg-type]
    pieces.resend(alive, FILE_ID)  # type: ignore[arg-type]
    pieces.launch(alive, FILE_ID, ready[0])  # type: ignore[arg-type]
    assert [data for _, data, _ in alive.connection.posted] == [b"x" * CHUNK]


def test_a_connection_that_ends_while_a_piece_is_encrypted_for_it_spoils_nothing() -> None:
    data = random.Random(2).randbytes(CHUNK)
    half_way, go_on = threading.Event(), threading.Event()

    class Dying(FakeConnection):
        def post(self, ask: Ask, ticket: Ticket, *, data: memoryview, text: memoryview) -> None:
            assert self.sealer is not None
            _, nonce = self.sealer.seal(bytearray(bytes(64) + ask.body), data, text)
            self.alive = False
            ticket.lose()  # By the receiving thread, in the middle of the above: the piece counts as lost.
            half_way.set()
            assert go_on.wait(30)
            ticket.nonce = nonce
            raise SMBConnectionClosed("gone")

    pieces, dying, alive = behind(), FakeLink(Dying(Sealer(KEYS))), link(sealed=True)

    def launch() -> None:
        with pytest.raises(SMBConnectionClosed):
            write(pieces, dying, 0, data)

    first = threading.Thread(target=launch)
    first.start()
    assert half_way.wait(30)
    second = threading.Thread(target=pieces.resend, args=(alive, FILE_ID))
    second.start()
    second.join(0.05)
    go_on.set()
    first.join(30)
    second.join(30)
    assert [sent for _, sent, _ in alive.connection.posted] == [data]


def test_what_could_not_be_launched_is_kept_and_counts_for_a_flush() -> None:
    pieces, dead, alive = behind(), link(), link()
    ready = pieces.gather(0, memoryview(b"x" * CHUNK))
    pieces.keep(ready)
    pieces.keep(ready)  # It is held once.
    dead.connection.end()
    with pytest.raises(SMBConnectionClosed):
        pieces.drain(dead, pieces.mark())  # type: ignore[arg-type]
    with pytest.raises(Again):
        pieces.drain(alive, pieces.mark())  # type: ignore[arg-type]
    pieces.resend(alive, FILE_ID)  # type: ignore[arg-type]
    assert [data for _, data, _ in alive.connection.posted] == [b"x" * CHUNK]
    assert pieces.sent_again == 0


def test_a_refused_write_is_told_once_and_sent_again() -> None:
    pieces, to = behind(), link()
    write(pieces, to, 0, b"x" * CHUNK)
    to.connection.answer(FULL)
    second = pieces.gather(CHUNK, memoryview(b"y" * CHUNK))
    with pytest.raises(Refused) as caught:
        pieces.launch(to, FILE_ID, second[0])  # type: ignore[arg-type]
    assert caught.value.status == FULL
    pieces.keep(second)
    pieces.resend(to, FILE_ID)  # type: ignore[arg-type]
    assert sorted(data[:1] for _, data, _ in to.connection.posted) == [b"x", b"y"]


def test_a_short_write_goes_on_with_its_rest() -> None:
    pieces, to = behind(), link(sealed=True)
    write(pieces, to, 0, bytes(range(250)) * 4)
    to.connection.answer(count=300)
    with pytest.raises(Again):
        pieces.drain(to, pieces.mark())  # type: ignore[arg-type]
    pieces.resend(to, FILE_ID)  # type: ignore[arg-type]
    (rest,) = to.connection.posted
    assert (rest[0], rest[1]) == (300, (bytes(range(250)) * 4)[300:])
    to.connection.answer()
    pieces.drain(to, pieces.mark())  # type: ignore[arg-type]
    assert sorted((one.offset, one.length) for one in pieces.acknowledged()) == [
        (0, 300),
        (300, 700),
    ]


def test_no_more_pieces_than_the_depth_are_in_flight() -> None:
    pieces, to = behind(2), link()
    write(pieces, to, 0, b"x" * 2 * CHUNK)
    waiter = threading.Thread(target=write, args=(pieces, to, 2 * CHUNK, b"y" * CHUNK))
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    assert len(to.connection.posted) == 2
    to.connection.answer()
    waiter.join(30)
    assert len(to.connection.posted) == 2


def test_a_server_that_never_answers_ends_in_a_timeout() -> None:
    pieces, to = behind(), link()
    to.connection.answer_timeout = 0.05
    write(pieces, to, 0, b"x" * CHUNK)
    with pytest.raises(AnswerTimeout):
        pieces.drain(to, pieces.mark())  # type: ignore[arg-type]
