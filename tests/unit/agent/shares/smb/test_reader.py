"""The pipelined reader against a link without a server: order, bounds, short answers, slots."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from smbprotocol.exceptions import SMBConnectionClosed

from agent.shares.smb import seal
from agent.shares.smb.reader import SMALLEST_PIECE, read_range
from agent.shares.smb.ticket import Ticket
from agent.shares.smb.window import Depth, Slots
from agent.shares.smb.wire import Ask, Refused
from imaging.units import KiB, MiB

CONTENT = bytes(range(251)) * 40_000
CHUNK = 64 * KiB

Answer = Callable[[int, int], int]
"""(offset, length) -> bytes that the server reads."""


def _everything(_: int, length: int) -> int:
    return length


@dataclass
class FakeConnection:
    """Answers READs from CONTENT when they are collected; `answer` may spoil them."""

    answer: Answer
    in_flight: int = 0
    most_in_flight: int = 0
    given_up: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    open: dict[Ticket, tuple[int, int]] = field(default_factory=dict)

    def post(self, ask: Ask, ticket: Ticket) -> None:
        offset, length = int.from_bytes(ask.body[8:16], "little"), ticket.asked
        assert ask.charge == -(-length // (64 * KiB))
        self.asked.append((offset, length))
        self.open[ticket] = offset, length
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def collect(self, ticket: Ticket) -> int:
        if ticket.head is not None and ticket.head.status:
            raise Refused(ticket.head.status)
        offset, length = self.open.pop(ticket)
        self.in_flight -= 1
        try:
            count = self.answer(offset, length)
        except Refused as err:
            ticket.finish(seal.Head(err.status, 8, 1, 1, 0, 0, b""))
            raise
        except SMBConnectionClosed:
            ticket.lose()
            raise
        assert ticket.view is not None
        ticket.view[:count] = CONTENT[offset : offset + count]
        ticket.finish(seal.Head(0, 8, 1, 1, 0, 0, b""), count)
        return count

    def give_up(self) -> None:
        self.given_up = True
        for ticket in self.open:
            ticket.lose()
        self.open.clear()
        self.in_flight = 0


@dataclass
class FakeLink:
    """What the reader needs of a link."""

    connection: FakeConnection
    depth: int = 4
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.slots = Slots(Depth(self.depth, self.depth), timeout=0.01)

    def assert_all_slots_are_back(self) -> None:
        for _ in range(self.depth):
            assert self.slots.take(wait=False)
        assert not self.slots.take(wait=False)


def _read(link: FakeLink, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    read_range(link, b"f" * 16, offset, memoryview(buffer))  # type: ignore[arg-type]
    return bytes(buffer)


def test_a_large_read_is_split_and_kept_at_depth() -> None:
    link = FakeLink(FakeConnection(_everything))
    assert _read(link, 100, 10 * CHUNK + 7) == CONTENT[100 : 100 + 10 * CHUNK + 7]
    assert link.connection.most_in_flight == link.depth
    assert len(link.connection.asked) == 11
    link.assert_all_slots_are_back()


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (1, [1]),
        (SMALLEST_PIECE, [SMALLEST_PIECE]),
        (3 * MiB, [2 * MiB, MiB]),
        (4 * MiB, [2 * MiB] * 2),
        (9 * MiB, [4 * MiB, 4 * MiB, MiB]),
    ],
    ids=["a byte", "a piece", "three", "four", "nine"],
)
def test_pieces_are_as_large_as_leaves_several_in_flight(length: int, sizes: list[int]) -> None:
    link = FakeLink(FakeConnection(_everything), chunk=4 * MiB)
    assert _read(link, 0, length) == CONTENT[:length]
    assert [size for _, size in link.connection.asked] == sizes


def test_beside_others_a_read_is_as_large_as_the_server_allows() -> None:
    link = FakeLink(FakeConnection(_everything), chunk=4 * MiB)
    link.slots.take(wait=True)
    assert _read(link, 0, 5 * MiB) == CONTENT[: 5 * MiB]
    assert [size for _, size in link.connection.asked] == [4 * MiB, MiB]


def test_a_short_answer_is_asked_for_again_from_where_it_ended() -> None:
    link = FakeLink(FakeConnection(lambda _, length: min(length, 1000)))
    assert _read(link, 5, 2500) == CONTENT[5:2505]
    assert link.connection.asked == [(5, 2500), (1005, 1500), (2005, 500)]


def test_after_a_refusal_nothing_of_the_read_is_in_flight_and_the_link_lives() -> None:
    def refuses_one(offset: int, length: int) -> int:
        if offset == 2 * CHUNK:
            raise Refused(0xC0000011)
        return length

    link = FakeLink(FakeConnection(refuses_one))
    with pytest.raises(Refused):
        _read(link, 0, 10 * CHUNK)
    assert link.connection.in_flight == 0
    assert not link.connection.given_up
    link.assert_all_slots_are_back()


def test_after_a_loss_the_connection_is_ended_before_the_buffer_is_given_back() -> None:
    def lost(offset: int, length: int) -> int:
        if offset >= 2 * CHUNK:
            raise SMBConnectionClosed("gone")
        return length

    link = FakeLink(FakeConnection(lost))
    with pytest.raises(SMBConnectionClosed):
        _read(link, 0, 10 * CHUNK)
    assert link.connection.given_up
    assert link.connection.in_flight == 0
    link.assert_all_slots_are_back()


def test_a_reader_with_something_in_flight_does_not_wait_for_a_slot() -> None:
    link = FakeLink(FakeConnection(_everything), depth=1)
    assert _read(link, 0, 5 * CHUNK) == CONTENT[: 5 * CHUNK]
    assert link.connection.most_in_flight == 1


def test_slots_that_never_come_back_end_in_a_timeout() -> None:
    link = FakeLink(FakeConnection(_everything), depth=1)
    link.slots.take(wait=True)
    with pytest.raises(TimeoutError):
        _read(link, 0, 10)
