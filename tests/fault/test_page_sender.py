"""The page sender against servers and proxies that answer early, hang up, lie or never end."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from agent.targets.azure import sender_wire as wire
from agent.targets.azure.http import HttpSettings
from agent.targets.azure.sender import (
    SEND_ERRORS,
    BadRequest,
    ProxyRefusal,
    Sender,
    StopFlag,
    TooSlow,
)
from agent.threads import Pool, run_blocking
from tests.support.azure_jobs import self_signed

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


class TlsInTheMiddle:
    """A socket with room whose TLS layer first wants something else, `times` times; counts what it was asked."""

    def __init__(self, sock: socket.socket, wants: type[ssl.SSLError], times: int) -> None:
        self._sock = sock
        self._wants = wants
        self._left = times
        self.asked = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def send(self, data: memoryview) -> int:
        self.asked += 1
        if self._left:
            raise self._wants
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        self._sock.recv(size)
        self._left -= 1
        raise self._wants


def over_tls_that(
    wants: type[ssl.SSLError], near: socket.socket
) -> tuple[wire.Wire, TlsInTheMiddle]:
    middle = TlsInTheMiddle(near, wants, 1)
    return wire.Wire(middle, wire.Origin("https", "x", 443)), middle


def test_a_tls_layer_that_has_to_read_first_is_waited_for_and_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket has room all the time (new keys, a renegotiation): waiting for room would be no waiting."""
    monkeypatch.setattr(wire, "IDLE_S", 0.1)
    near, far = socket.socketpair()
    with near, far:
        sending, tls = over_tls_that(ssl.SSLWantReadError, near)
        with pytest.raises(TimeoutError, match="nothing was taken"):
            sending.send(b"head", memoryview(b"body"), wire.Clock())
    assert tls.asked == 1


@pytest.mark.parametrize("wants", [ssl.SSLWantReadError, ssl.SSLWantWriteError])
def test_a_record_of_tls_itself_is_no_answer(wants: type[ssl.SSLError]) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"record")
        sending, tls = over_tls_that(wants, near)
        assert sending.send(b"head", memoryview(b"body"), wire.Clock()) is None
        assert far.recv(100) == b"headbody"
    assert tls.asked == 3


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


async def test_a_certificate_that_is_not_trusted_gets_no_byte_of_the_request(
    tmp_path: Path,
) -> None:
    ca_file, tls = self_signed(tmp_path)
    got = []

    def intercept(peer: socket.socket) -> None:
        with suppress(OSError), tls.wrap_socket(peer, server_side=True) as inner:
            got.append(inner.recv(1))

    with serving(intercept) as port, pytest.raises(ssl.SSLCertVerificationError):
        await put(port, scheme="https")
    assert not any(got)
    with serving(lambda peer: answer_tls(peer, tls)) as port:
        settings = HttpSettings(ca_file=str(ca_file))
        assert (await put(port, settings=settings, scheme="https")).status == 201


def answer_tls(peer: socket.socket, tls: ssl.SSLContext) -> None:
    with tls.wrap_socket(peer, server_side=True) as inner:
        read_request(inner)
        inner.sendall(CREATED)


async def test_tls_goes_through_a_proxy_that_asks_for_a_password(tmp_path: Path) -> None:
    ca_file, tls = self_signed(tmp_path)
    heads = []

    def proxy(peer: socket.socket) -> None:
        heads.append(read_head(peer)[0])
        peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        answer_tls(peer, tls)

    with serving(proxy) as port:
        settings = HttpSettings(
            proxy=f"http://127.0.0.1:{port}", proxy_auth="me:secret", ca_file=str(ca_file)
        )
        assert (await put(9, settings=settings, scheme="https")).status == 201
    assert heads[0].startswith(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in heads[0]


async def test_stopping_never_takes_the_tls_layer_off(tmp_path: Path) -> None:
    """SSLSocket.shutdown does: a thread in the middle of sending would go on in plain text."""
    ca_file, tls = self_signed(tmp_path)
    context = HttpSettings(ca_file=str(ca_file)).tls()

    def take(peer: socket.socket) -> None:
        with suppress(OSError), tls.wrap_socket(peer, server_side=True) as inner:
            inner.recv(1)

    with (
        serving(take) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        stop = StopFlag()
        stop.watch(sock)
        stop.set()
        assert sock.version() is not None
        with pytest.raises(OSError):  # noqa: PT011 - which one is the platform's
            sock.sendall(b"disk bytes")


def test_a_stopped_request_looks_up_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends a lookup but the resolver's own time limit."""
    looked_up = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: looked_up.append(args))
    stop = StopFlag()
    stop.set()
    with pytest.raises(wire.Stopped):
        Sender(HttpSettings()).put("http://blob.example/c", {}, BODY, stop=stop)
    assert looked_up == []


async def test_a_connection_that_never_comes_about_can_be_stopped() -> None:
    """A listener whose queue is full takes no more: the connect hangs until it is stopped."""
    with socket.socket() as listener, ExitStack() as queue:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = queue.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            task = group.create_task(put(address[1]))
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()


async def test_a_tls_handshake_that_is_not_answered_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "CONNECT_S", 600.0)
    begun, gone = threading.Event(), threading.Event()

    def silent(peer: socket.socket) -> None:
        peer.recv(65536)
        begun.set()
        with suppress(OSError):  # not a time-out: that would be this side's patience
            while peer.recv(65536):
                pass
            gone.set()

    with serving(silent) as port:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(put(port, scheme="https"))
            while not begun.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0.01)
            task.cancel()
    assert gone.is_set()


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


async def test_a_cancelled_write_ends_at_once_and_frees_its_thread() -> None:
    reached, gone = threading.Event(), threading.Event()

    def never(peer: socket.socket) -> None:
        read_request(peer)
        reached.set()
        try:
            peer.recv(1)
        finally:
            gone.set()

    sender = AsyncSender(HttpSettings())
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
