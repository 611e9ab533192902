"""Answers are read whole whatever the pieces they come in, bounded, and kept only if their end was certain."""

from collections.abc import Callable

import pytest

from agent.targets.http.answer import (
    MAX_BODY,
    MAX_HEAD,
    Answer,
    AnswerReader,
    BadAnswer,
    is_interim,
)


def pieces(data: bytes, size: int) -> Callable[[], bytes]:
    """Give `data` in pieces, then the end."""
    left = iter([data[at : at + size] for at in range(0, len(data), size)])
    return lambda: next(left, b"")


def read(data: bytes, *, size: int = 7, connect: bool = False) -> tuple[Answer, bool]:
    reader = AnswerReader(pieces(data, size))
    answer = reader.read(connect=connect)
    return answer, reader.keep


REFUSED = b"HTTP/1.1 403 Not you\r\nx-ms-Error-Code: Nope\r\nX: 1\r\nx: 2\r\nContent-Length: 5\r\n\r\n<E/>\n"


@pytest.mark.parametrize("size", [1, 2, 3, 50, 4096])
def test_the_pieces_do_not_matter(size: int) -> None:
    answer, keep = read(REFUSED, size=size)
    assert (answer.status, answer.reason, answer.body) == (403, "Not you", b"<E/>\n")
    assert answer.headers["x-ms-error-code"] == "Nope"
    assert answer.headers["x"] == "1, 2"
    assert keep


def test_what_came_before_reading_belongs_to_it() -> None:
    reader = AnswerReader(pieces(REFUSED[20:], 9), begun=REFUSED[:20])
    assert reader.read().status == 403


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 N\r\n\r\n", b""),
        (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n", b""),
        (
            b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            b"abcde",
        ),
    ],
    ids=["empty", "no-content", "interim", "chunked"],
)
def test_an_answer_with_a_certain_end_keeps_the_connection(data: bytes, body: bytes) -> None:
    answer, keep = read(data)
    assert answer.body == body
    assert keep


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 201 C\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 201 C\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 E\r\n\r\nto the end",
        b"HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 C\r\n",
        b"HTTP/1.1 500 E\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
    ],
    ids=["close", "1.0", "no-length", "more", "two-lengths", "trailer"],
)
def test_an_answer_with_an_uncertain_end_does_not(data: bytes) -> None:
    assert not read(data, size=4096)[1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 201 C\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 2x1 C\r\n\r\n",
        b"HTTP/2 201 C\r\n\r\n",
        b"HTTP/1.1 500 E\r\nno colon\r\n\r\n",
        b"HTTP/1.1 500 E\r\nX : 1\r\n\r\n",
        b"HTTP/1.1 500 E\r\nX: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 500 E\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 500 E\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 500 E\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 100 Go\r\n\r\n" * 20,
        b"HTTP/1.1 500 E\r\nX: " + b"y" * MAX_HEAD + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        read(data, size=4096)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 500 E\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 500 E\r\n\r\n",
        b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ],
    ids=["length", "to-the-end", "chunked"],
)
def test_an_endless_body_is_cut(data: bytes) -> None:
    taken = []

    def endless() -> bytes:
        taken.append(data if not taken else b"y" * 4096)
        return taken[-1]

    reader = AnswerReader(endless)
    assert reader.read().body == b"y" * MAX_BODY
    assert not reader.keep
    assert len(taken) <= MAX_BODY // 4096 + 2


def test_a_success_of_connect_has_no_body() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    assert read(data, connect=True)[0].is_success


@pytest.mark.parametrize(
    ("data", "interim"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", True),
        (b"HTTP/1.1 102 \r\nX: 1\r\nY: 2\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n", False),
        (b"HTTP/1.1 503 Busy\r\n\r\n", False),
        (b"", False),
    ],
    ids=["one", "two", "refusal-behind", "cut", "refusal", "end"],
)
def test_only_whole_interim_answers_are_interim(data: bytes, *, interim: bool) -> None:
    assert is_interim(data) is interim
