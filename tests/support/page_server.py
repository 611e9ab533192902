"""A server of one kind of answer, and a `Sender` that a test's loop can cancel. For tests of the page sender."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.targets.http.sender import Sender, StopFlag
from agent.targets.http.settings import HttpSettings
from agent.threads import Pool, run_blocking

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


class AsyncSender:
    """A `Sender` for these tests' loop; a cancelled request is stopped."""

    def __init__(self, settings: HttpSettings) -> None:
        self._sender = Sender(settings)
        self._pool = Pool("put", 1)

    async def put(self, url: str, headers: dict[str, str], body: memoryview):
        stop = StopFlag()
        return await run_blocking(
            self._pool, lambda: self._sender.put(url, headers, body, stop=stop), stop=stop
        )

    def close(self) -> None:
        self._sender.close()
        self._pool.close()


async def put(port: int, *, sender: AsyncSender | None = None, settings=None, scheme="http"):
    made = sender or AsyncSender(settings or HttpSettings())
    try:
        return await made.put(f"{scheme}://127.0.0.1:{port}/c/b?comp=page", {"X-One": "1"}, BODY)
    finally:
        if sender is None:
            made.close()


def answer_tls(peer: socket.socket, tls: ssl.SSLContext) -> None:
    with tls.wrap_socket(peer, server_side=True) as inner:
        read_request(inner)
        inner.sendall(CREATED)
