"""A resumable upload keeps its books: what is persisted, what is a tail, what is asked after a lost answer."""

import random
from collections.abc import Mapping

import pytest

from agent.errors import AgentError, Retryable
from agent.targets.base import StoredPart
from agent.targets.errors import DiskLost, TargetRefused, TargetUnavailable
from agent.targets.gcp.failures import failure
from agent.targets.gcp.resumable import STEP, InOrder
from agent.targets.http.sender import Answer
from agent.threads import Stop


class Bucket:
    """A bucket that asks for no proof."""

    endpoint, name = "https://storage.example", "images"

    def authorize(self, _method, _path, _query, headers: Mapping[str, str]) -> dict[str, str]:
        return dict(headers)

    def failure(self, status, code, message, headers, what) -> AgentError:
        return failure(status, code, message, headers, what=what)


class Service:
    """Takes chunks as Cloud Storage does; `script` says what happens to each request instead."""

    def __init__(self, script=()) -> None:
        self.held, self.total = b"", None
        self.script = list(script)
        self.asked: list[str] = []

    def put(self, _url, headers, body, *, stop) -> Answer:
        span = headers["Content-Range"]
        self.asked.append(span)
        todo = self.script.pop(0) if self.script else "take"
        if isinstance(todo, Answer):
            return todo
        if todo == "lose-request":
            raise ConnectionResetError
        self._take(
            span, bytes(body) if todo != "half" else bytes(body)[: len(body) // 2 // STEP * STEP]
        )
        if todo == "lose-answer":
            raise ConnectionResetError
        if self.total is not None and len(self.held) == self.total:
            return Answer(200, "", {}, b"{}")
        range_ = {"range": f"bytes=0-{len(self.held) - 1}"} if self.held else {}
        return Answer(308, "", range_, b"")

    def _take(self, span: str, body: bytes) -> None:
        place, _, total = span.removeprefix("bytes ").partition("/")
        if total != "*":
            self.total = int(total)
        if place == "*":
            return
        start = int(place.partition("-")[0])
        assert start <= len(self.held)
        assert total != "*" or len(body) % STEP == 0
        self.held += body[len(self.held) - start :]


def parts_of(data: bytes, *sizes: int):
    offset = 0
    for number, size in enumerate(sizes, start=1):
        yield number, offset, data[offset : offset + size]
        offset += size


SIZES = (STEP + 7, 5, 3 * STEP - 12, 100)
DATA = random.Random(4).randbytes(sum(SIZES))
STORED = [StoredPart(n, len(d), str(n)) for n, _, d in parts_of(DATA, *SIZES)]


async def send(way: InOrder, *, patience: int = 4) -> None:
    """Send all parts, each again as often as `patience` says, then complete."""
    for number, offset, data in parts_of(DATA, *SIZES):
        for attempt in range(patience):
            try:
                way.put_part(number, offset, data, Stop())
                break
            except Retryable:
                assert attempt < patience - 1
    for attempt in range(patience):
        try:
            await way.complete(STORED)
            break
        except Retryable:
            assert attempt < patience - 1


async def test_parts_of_any_size_become_chunks_of_whole_steps() -> None:
    service = Service()
    await send(InOrder(Bucket(), service, "k", "u"))
    assert service.held == DATA
    assert service.asked == [
        f"bytes 0-{STEP - 1}/*",
        f"bytes {STEP}-{4 * STEP - 1}/*",
        f"bytes {4 * STEP}-{len(DATA) - 1}/{len(DATA)}",
    ]


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_breaks_the_object_is_exact_and_complete(seed: int) -> None:
    rng = random.Random(seed)
    what = ["take", "take", "lose-request", "lose-answer", "half"]
    service = Service([rng.choice(what) for _ in range(12)])
    await send(InOrder(Bucket(), service, "k", "u"), patience=14)
    assert service.held == DATA


async def test_a_later_attempt_sends_only_what_is_not_persisted() -> None:
    service = Service()
    first = InOrder(Bucket(), service, "k", "u")
    for number, offset, data in list(parts_of(DATA, *SIZES))[:3]:
        first.put_part(number, offset, data, Stop())
    second = InOrder(Bucket(), service, "k", "u")
    assert await second.resume()
    assert second.held == 4 * STEP
    service.asked.clear()
    await send(second)
    assert service.held == DATA
    assert service.asked == [f"bytes {4 * STEP}-{len(DATA) - 1}/{len(DATA)}"]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_is_gone_is_no_session(status: int) -> None:
    way = InOrder(Bucket(), Service([Answer(status, "", {}, b"")]), "k", "u")
    assert not await way.resume()
    way = InOrder(Bucket(), Service([Answer(status, "", {}, b"")]), "k", "u")
    with pytest.raises(DiskLost):
        way.put_part(1, 0, bytes(STEP), Stop())


async def test_a_session_that_holds_what_nobody_sent_is_no_session() -> None:
    way = InOrder(Bucket(), Service([Answer(308, "", {"range": "bytes=0-0"}, b"")]), "k", "u")
    assert not await way.resume()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(308, "", {"range": "bytes=5-9"}, b""), TargetUnavailable),
        (Answer(308, "", {"range": "nonsense"}, b""), TargetUnavailable),
        (Answer(308, "", {}, b""), TargetUnavailable),  # nothing of it was persisted
        (Answer(308, "", {"range": f"bytes=0-{9 * STEP}"}, b""), DiskLost),  # more than was sent
        (Answer(200, "", {}, b"{}"), TargetRefused),  # complete, before the end
    ],
)
def test_answers_that_cannot_be_are_named(answer: Answer, error: type[AgentError]) -> None:
    way = InOrder(Bucket(), Service([answer]), "k", "u")
    with pytest.raises(error):
        way.put_part(1, 0, bytes(STEP), Stop())


def test_a_gap_is_never_sent() -> None:
    way = InOrder(Bucket(), Service(), "k", "u")
    with pytest.raises(DiskLost, match="continues at byte 0"):
        way.put_part(2, 10, b"x", Stop())
