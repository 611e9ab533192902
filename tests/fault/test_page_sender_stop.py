"""The page sender over TLS and through proxies, and when it is stopped: at every wait."""

import asyncio
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from agent.targets.http import wire
from agent.targets.http.sender import (
    ProxyRefusal,
    Sender,
    StopFlag,
)
from agent.targets.http.settings import HttpSettings
from tests.support.azure_jobs import self_signed
from tests.support.page_server import (
    BODY,
    CREATED,
    AsyncSender,
    answer_tls,
    put,
    read_head,
    read_request,
    serving,
)

pytestmark = pytest.mark.fault


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
