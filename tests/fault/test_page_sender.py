"""The page sender against servers and proxies that answer early, hang up, lie or never end."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.targets.azure import sender as module
from agent.targets.azure.http import HttpSettings
from agent.targets.azure.sender import SEND_ERRORS, AsyncSender, ProxyRefusal, TooSlow

pytestmark = pytest.mark.fault

BODY = memoryview(bytes(range(256)) * 16 * 1024)
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(handle: Callable[[socket.socket], None], *, connections: int = 1) -> Iterator[int]:
    """Handle `connections` connections, one after the other, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)

    def serve() -> None:
        for _ in range(connections):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(30)
                handle(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(timeout=30)
        listener.close()


def read_head(peer: socket.socket) -> tuple[bytes, bytes]:
    """Return (head, what came of the body)."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def read_request(peer: socket.socket) -> tuple[bytes, bytes]:
    """Return (head, body)."""
    head, body = read_head(peer)
    while len(body) < len(BODY):
        body += peer.recv(1 << 20)
    return head, body


async def put(port: int, *, sender: AsyncSender | None = None, settings=None, scheme="http"):
    made = sender or AsyncSender(settings or HttpSettings(), at_once=2)
    try:
        return await made.put(f"{scheme}://127.0.0.1:{port}/c/b?comp=page", {"X-One": "1"}, BODY)
    finally:
        if sender is None:
            made.close()


async def test_the_body_arrives_whole_and_the_connection_is_kept() -> None:
    seen = []

    def twice(peer: socket.socket) -> None:
        for _ in range(2):
            head, body = read_request(peer)
            seen.append((head, body == bytes(BODY)))
            peer.sendall(CREATED)

    sender = AsyncSender(HttpSettings(), at_once=2)
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
    sender = AsyncSender(HttpSettings(), at_once=1)
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


async def test_a_request_that_trickles_hits_the_total_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(0, 10_000, 200))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))

    def slowly(peer: socket.socket) -> None:
        read_head(peer)
        while peer.recv(1 << 20):
            pass

    with serving(slowly) as port, pytest.raises(TooSlow):
        await put(port)


async def test_a_cancelled_write_ends_at_once_and_frees_its_thread() -> None:
    reached, gone = threading.Event(), threading.Event()

    def never(peer: socket.socket) -> None:
        read_request(peer)
        reached.set()
        try:
            peer.recv(1)
        finally:
            gone.set()

    sender = AsyncSender(HttpSettings(), at_once=1)
    with serving(never) as port:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(put(port, sender=sender))
            while not reached.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0.01)
            task.cancel()
        assert gone.wait(30)
    with serving(lambda peer: (read_request(peer), peer.sendall(CREATED))) as port:
        assert (await put(port, sender=sender)).status == 201
    sender.close()


async def test_a_proxy_that_wants_a_password_is_named() -> None:
    seen = []

    def refuse(peer: socket.socket) -> None:
        seen.append(read_head(peer)[0])
        peer.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as port:
        settings = HttpSettings(proxy=f"http://127.0.0.1:{port}", proxy_auth="me:secret")
        with pytest.raises(ProxyRefusal) as caught:
            await put(1, settings=settings, scheme="https")
    assert caught.value.status == 407
    assert b"CONNECT 127.0.0.1:1 HTTP/1.1" in seen[0]
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in seen[0]
    assert "secret" not in str(caught.value)


async def test_plain_http_through_a_proxy_names_the_whole_address() -> None:
    seen = []

    def proxy(peer: socket.socket) -> None:
        seen.append(read_request(peer)[0])
        peer.sendall(CREATED)

    with serving(proxy) as port:
        settings = HttpSettings(proxy=f"http://127.0.0.1:{port}", proxy_auth="me:secret")
        answer = await put(9, settings=settings)
    assert answer.status == 201
    assert seen[0].startswith(b"PUT http://127.0.0.1:9/c/b?comp=page HTTP/1.1\r\n")
