"""The page sender against servers and proxies that answer early, hang up, lie or never end."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from agent.targets.http import wire
from agent.targets.http.sender import (
    SEND_ERRORS,
    BadRequest,
    TooSlow,
)
from agent.targets.http.settings import HttpSettings
from tests.support.page_server import (
    BODY,
    CREATED,
    AsyncSender,
    put,
    read_head,
    read_request,
    serving,
)

pytestmark = pytest.mark.fault


async def test_the_body_arrives_whole_and_the_connection_is_kept() -> None:
    seen = []

    def twice(peer: socket.socket) -> None:
        for _ in range(2):
            head, body = read_request(peer)
            seen.append((head, body == bytes(BODY)))
            peer.sendall(CREATED)

    sender = AsyncSender(HttpSettings())
    with serving(twice) as port:
        for _ in range(2):
            assert (await put(port, sender=sender)).status == 201
    sender.close()
    assert [whole for _, whole in seen] == [True, True]
    assert seen[0][0].startswith(b"PUT /c/b?comp=page HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_an_early_refusal_is_read_although_the_body_was_not_taken() -> None:
    def refuse(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nx-ms-error-code: Nope\r\n\r\nno")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 20):
            pass

    with serving(refuse) as port:
        answer = await put(port)
    assert (answer.status, answer.body) == (403, b"no")


async def test_success_for_a_body_that_was_not_taken_is_no_success() -> None:
    def lie(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(CREATED)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    big = memoryview(bytes(64 * 1024 * 1024))
    sender = AsyncSender(HttpSettings())
    with serving(lie) as port, pytest.raises(SEND_ERRORS):
        await sender.put(f"http://127.0.0.1:{port}/", {}, big)
    sender.close()


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n"], ids=["eof", "cut", "noise"]
)
async def test_no_whole_answer_is_an_error_and_nothing_is_sent_again(said: bytes) -> None:
    requests = []

    def answer(peer: socket.socket) -> None:
        requests.append(read_request(peer)[0])
        peer.sendall(said)

    with serving(answer) as port, pytest.raises(SEND_ERRORS):
        await put(port)
    assert len(requests) == 1


@pytest.mark.parametrize("part", ["head", "body"])
async def test_an_answer_that_trickles_hits_the_total_limit(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(wire, "TOTAL_S", 0.5)
    begin = b"HTTP/1.1 503 Busy\r\nX: " + (b"" if part == "head" else b"y\r\n\r\n")

    def slowly(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(begin)
        with suppress(OSError):
            while True:
                peer.sendall(b"z")
                peer.settimeout(0.02)
                with suppress(TimeoutError):
                    if not peer.recv(1):
                        return

    with serving(slowly) as port, pytest.raises(TooSlow):
        await put(port)


async def test_a_service_that_takes_the_body_too_slowly_hits_the_total_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "TOTAL_S", 0.5)
    done = threading.Event()

    def never(peer: socket.socket) -> None:
        read_head(peer)
        done.wait(30)

    sender = AsyncSender(HttpSettings())
    with serving(never) as port:
        with pytest.raises(TooSlow):
            await sender.put(f"http://127.0.0.1:{port}/", {}, memoryview(bytes(64 * 1024 * 1024)))
        done.set()
    sender.close()


async def test_an_early_refusal_ends_the_sending_although_the_service_reads_on() -> None:
    body = memoryview(bytes(64 * 1024 * 1024))
    taken, answered = [], threading.Event()

    def refuse(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n")
        with suppress(OSError):
            while data := peer.recv(65536):
                taken.append(len(data))
                if len(taken) == 16:  # who never waits sends all of it, and would not look
                    answered.wait(30)

    sender = AsyncSender(HttpSettings())
    with serving(refuse) as port:
        answer = await sender.put(f"http://127.0.0.1:{port}/", {}, body)
        answered.set()
        sender.close()
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    assert sum(taken) < len(body)


@pytest.mark.parametrize("heads", [b"", b"X-One: 1\r\n"], ids=["bare", "headers"])
async def test_an_interim_answer_that_nobody_asked_for_does_not_end_the_sending(
    heads: bytes,
) -> None:
    body = memoryview(bytes(64 * 1024 * 1024))
    taken = []

    def go_on(peer: socket.socket) -> None:
        taken.append(len(read_head(peer)[1]))
        peer.sendall(b"HTTP/1.1 100 Continue\r\n" + heads + b"\r\n")
        while sum(taken) < len(body) and (data := peer.recv(1 << 20)):
            taken.append(len(data))
        peer.sendall(CREATED)

    sender = AsyncSender(HttpSettings())
    with serving(go_on) as port:
        try:
            assert (await sender.put(f"http://127.0.0.1:{port}/", {}, body)).status == 201
        finally:
            sender.close()
    assert sum(taken) == len(body)


async def test_a_service_that_half_closes_is_an_error_and_nothing_is_sent_again() -> None:
    heads = []

    def half(peer: socket.socket) -> None:
        heads.append(read_head(peer)[0])
        peer.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while peer.recv(1 << 20):
                pass

    with serving(half) as port, pytest.raises(SEND_ERRORS):
        await put(port)
    assert len(heads) == 1


async def test_a_kept_connection_that_the_service_closed_is_not_used() -> None:
    closed = threading.Event()
    count = []

    def once(peer: socket.socket) -> None:
        read_request(peer)
        count.append(peer)
        peer.sendall(CREATED)
        peer.shutdown(socket.SHUT_RDWR)
        closed.set()

    sender = AsyncSender(HttpSettings())
    with serving(once, connections=2) as port:
        assert (await put(port, sender=sender)).status == 201
        assert closed.wait(30)
        assert (await put(port, sender=sender)).status == 201
    sender.close()
    assert len(count) == 2


async def test_a_kept_connection_serves_only_its_own_host() -> None:
    seen = {"first": 0, "second": 0}

    def counting(name: str) -> Callable[[socket.socket], None]:
        def handle(peer: socket.socket) -> None:
            read_request(peer)
            seen[name] += 1
            peer.sendall(CREATED)

        return handle

    sender = AsyncSender(HttpSettings())
    with serving(counting("first")) as first, serving(counting("second")) as second:
        await put(first, sender=sender)
        await put(second, sender=sender)
    sender.close()
    assert seen == {"first": 1, "second": 1}


@pytest.mark.parametrize("where", ["address", "header"])
async def test_what_would_smuggle_a_header_is_refused_without_showing_it(where: str) -> None:
    sender = AsyncSender(HttpSettings())
    bad = "sig=secret\u2028"
    url = f"http://127.0.0.1:9/c?{bad if where == 'address' else ''}"
    headers = {"Authorization": "Bearer secret\r\nX-Evil: 1"} if where == "header" else {}
    with pytest.raises(BadRequest) as caught:
        await sender.put(url, headers, BODY)
    sender.close()
    assert "secret" not in str(caught.value)
