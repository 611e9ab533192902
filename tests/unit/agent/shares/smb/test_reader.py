"""The pipelined reader against a link without a server: order, bounds, short answers, slots."""

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.shares.smb.connection import AnswerTimeout
from agent.shares.smb.reader import read_range
from agent.shares.smb.seal import Tampered
from imaging.units import KiB

CONTENT = bytes(range(251)) * 4000
CHUNK = 64 * KiB


class Lost(Exception):
    """The link broke."""


@dataclass
class FakeConnection:
    """Answers READs from CONTENT; `answer` may spoil them."""

    answer: Callable[[int, int], bytes]
    answer_timeout: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)

    def send_when_granted(self, message: Any, *, charge: int, sid: int, tid: int) -> Any:
        offset, length = message["offset"].get_value(), message["length"].get_value()
        assert charge == -(-length // (64 * KiB))
        self.asked.append((offset, length))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return offset, length

    def receive_data(self, request: Any) -> memoryview:
        self.in_flight -= 1
        return memoryview(self.answer(*request))


@dataclass
class FakeLink:
    """What the reader needs of a link."""

    connection: FakeConnection
    depth: int = 4
    chunk: int = CHUNK
    session_id: int = 1
    tree_id: int = 2

    def __post_init__(self) -> None:
        self.slots = threading.BoundedSemaphore(self.depth)

    def assert_all_slots_are_back(self) -> None:
        for _ in range(self.depth):
            assert self.slots.acquire(blocking=False)


def _body(data: bytes, *, offset: int = 80, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack("<HBBIII", 17, offset, 0, size, 0, 0) + (data or b"\0")


def _honest(offset: int, length: int) -> bytes:
    return _body(CONTENT[offset : offset + length])


def _read(link: FakeLink, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    read_range(link, b"f" * 16, offset, memoryview(buffer))  # type: ignore[arg-type]
    return bytes(buffer)


def test_a_large_read_is_split_and_kept_at_depth() -> None:
    link = FakeLink(FakeConnection(_honest))
    assert _read(link, 100, 10 * CHUNK + 7) == CONTENT[100 : 100 + 10 * CHUNK + 7]
    assert link.connection.most_in_flight == link.depth
    assert len(link.connection.asked) == 11
    link.assert_all_slots_are_back()


def test_a_short_answer_is_asked_for_again_from_where_it_ended() -> None:
    def at_most_1000(offset: int, length: int) -> bytes:
        return _honest(offset, min(length, 1000))

    link = FakeLink(FakeConnection(at_most_1000))
    assert _read(link, 5, 2500) == CONTENT[5:2505]
    assert link.connection.asked == [(5, 2500), (1005, 1500), (2005, 500)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        _body(b"", length=0),
        _body(b"x" * 65),
        _body(b"x", length=64),
        _body(b"x" * 64, offset=0),
        _body(b"x" * 64, offset=79),
        _body(b"x" * 64, offset=200),
        _body(b"x" * 64, length=0xFFFFFFFF),
    ],
    ids=["nothing", "zero", "too much", "less than said", "offset 0", "in head", "behind", "4 GiB"],
)
def test_lengths_and_offsets_of_an_answer_are_not_trusted(body: bytes) -> None:
    link = FakeLink(FakeConnection(lambda *_: body))
    with pytest.raises(Tampered):
        _read(link, 0, 64)
    link.assert_all_slots_are_back()


def test_after_a_failure_nothing_of_the_read_is_in_flight() -> None:
    def fails_once(offset: int, length: int) -> bytes:
        if offset == 2 * CHUNK:
            raise Lost
        return _honest(offset, length)

    link = FakeLink(FakeConnection(fails_once))
    with pytest.raises(Lost):
        _read(link, 0, 10 * CHUNK)
    assert link.connection.in_flight == 0
    link.assert_all_slots_are_back()


def test_a_reader_with_something_in_flight_does_not_wait_for_a_slot() -> None:
    link = FakeLink(FakeConnection(_honest), depth=1)
    assert _read(link, 0, 5 * CHUNK) == CONTENT[: 5 * CHUNK]
    assert link.connection.most_in_flight == 1


def test_slots_that_never_come_back_end_in_a_timeout() -> None:
    link = FakeLink(FakeConnection(_honest), depth=1)
    link.slots.acquire()
    with pytest.raises(AnswerTimeout):
        _read(link, 0, 10)
