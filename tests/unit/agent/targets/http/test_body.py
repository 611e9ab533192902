"""A body that arrives in segments is read whole, and never without a bound."""

from types import SimpleNamespace

import pytest

from agent.bounded import read_up_to
from agent.targets.errors import TargetUnavailable
from agent.targets.http.body import whole


class Arriving:
    """A stream that gives one segment a read, as aiohttp's does."""

    def __init__(self, *segments: bytes) -> None:
        self.segments = list(segments)

    async def read(self, most: int) -> bytes:
        if not self.segments:
            return b""
        head, rest = self.segments[0][:most], self.segments[0][most:]
        self.segments[:1] = [rest] if rest else []
        return head


def answer(*segments: bytes):
    return SimpleNamespace(content=Arriving(*segments))


async def test_all_segments_are_read() -> None:
    assert await read_up_to(Arriving(b"ab", b"c", b"def"), 100) == b"abcdef"


async def test_no_more_than_asked_for_is_read() -> None:
    stream = Arriving(b"ab", b"cdef", b"g")
    assert await read_up_to(stream, 4) == b"abcd"
    assert stream.segments == [b"ef", b"g"]


async def test_an_answer_of_just_the_bound_is_whole() -> None:
    assert await whole(answer(b"ab", b"cd"), 4, what="ask") == b"abcd"


async def test_an_answer_over_the_bound_is_refused_and_names_what_was_asked() -> None:
    with pytest.raises(TargetUnavailable, match="list things: an answer of more than 4 bytes"):
        await whole(answer(b"ab", b"cd", b"e"), 4, what="list things")
