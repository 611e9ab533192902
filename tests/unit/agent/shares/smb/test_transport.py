"""Frames over a socket pair: bounds, ends and cuts."""

import socket
import threading
from collections.abc import Iterator

import pytest

from agent.shares.smb.seal import Tampered
from agent.shares.smb.transport import StrictTransport

LIMIT = 1000
GUARD = 30.0


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A listening socket on a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def ends(peer: socket.socket) -> Iterator[tuple[StrictTransport, socket.socket]]:
    """Our end, connected, and the server's."""
    transport = _transport(peer)
    transport.connect()
    server, _ = peer.accept()
    with server:
        yield transport, server
        transport.close()


def _frame(transport: StrictTransport, idle: float = GUARD) -> bytes | None:
    """Receive one frame; None at the end of the stream, be it inside of the frame."""

    def take(size: int) -> bytes | None:
        frame = memoryview(bytearray(size))
        return bytes(frame) if transport.fill(frame) else None

    return transport.receive(idle, take)


def _transport(peer: socket.socket, stall: float = GUARD) -> StrictTransport:
    return StrictTransport(*peer.getsockname(), max_frame=LIMIT, stall=stall)


def test_frames_pass_whole_however_they_are_cut(
    ends: tuple[StrictTransport, socket.socket],
) -> None:
    transport, server = ends
    stream = b"\0\0\0\x03abc" + b"\0\0\0\0" + b"\0\0\x03\xe8" + b"x" * LIMIT
    for index in range(len(stream)):
        server.sendall(stream[index : index + 1])
    assert [_frame(transport) for _ in range(3)] == [b"abc", b"", b"x" * LIMIT]


def test_a_sent_message_has_its_length_in_front(
    ends: tuple[StrictTransport, socket.socket],
) -> None:
    transport, server = ends
    transport.send(b"hello")
    assert server.recv(9, socket.MSG_WAITALL) == b"\0\0\0\x05hello"


def test_parts_are_sent_as_one_frame_however_little_the_peer_takes(
    ends: tuple[StrictTransport, socket.socket],
) -> None:
    transport, server = ends
    parts = [b"head", bytearray(b"x" * 3_000_000), memoryview(b"tail" * 500_000)]
    whole = b"".join(bytes(part) for part in parts)
    sender = threading.Thread(target=transport.send_parts, args=(parts,))
    sender.start()
    got = bytearray()
    while len(got) < 4 + len(whole):
        got += server.recv(70_001)
    sender.join(GUARD)
    assert got == len(whole).to_bytes(4, "big") + whole


def test_a_frame_over_the_limit_is_refused_by_its_length_alone(
    ends: tuple[StrictTransport, socket.socket],
) -> None:
    transport, server = ends
    server.sendall((LIMIT + 1).to_bytes(4, "big"))
    with pytest.raises(Tampered, match="1001"):
        _frame(transport)


def test_idle_is_told_apart_from_the_end(ends: tuple[StrictTransport, socket.socket]) -> None:
    transport, server = ends
    with pytest.raises(TimeoutError):
        _frame(transport, 0.01)
    server.sendall(b"\0\0\0\x01a")
    assert _frame(transport) == b"a"
    server.close()
    assert _frame(transport) is None


@pytest.mark.parametrize("part", [b"\0\0", b"\0\0\0\x05ab"], ids=["in the length", "in the body"])
def test_an_end_inside_a_frame_is_an_end(
    ends: tuple[StrictTransport, socket.socket], part: bytes
) -> None:
    transport, server = ends
    server.sendall(part)
    server.close()
    assert _frame(transport) is None


def test_a_stall_inside_a_frame_is_no_idle_time(peer: socket.socket) -> None:
    transport = _transport(peer, stall=0.05)
    transport.connect()
    server, _ = peer.accept()
    with server:
        server.sendall(b"\0\0\0\x05ab")
        with pytest.raises(ConnectionAbortedError):
            _frame(transport)
        transport.close()


def test_cut_wakes_a_receiver(ends: tuple[StrictTransport, socket.socket]) -> None:
    transport, _ = ends
    got: list[object] = ["nothing yet"]
    thread = threading.Thread(target=lambda: got.append(_frame(transport)))
    thread.start()
    transport.cut()
    thread.join(GUARD)
    assert got[1:] == [None]


def test_cut_before_connect_keeps_it_unconnected(peer: socket.socket) -> None:
    transport = _transport(peer)
    transport.cut()
    with pytest.raises(ConnectionAbortedError):
        transport.connect()


def test_cut_ends_a_connect_that_nobody_answers(peer: socket.socket) -> None:
    peer.listen(0)
    others = [socket.socket() for _ in range(4)]  # The queue is full: a further SYN is dropped.
    for other in others:
        other.setblocking(False)
        other.connect_ex(peer.getsockname())
    transport = _transport(peer)
    failed: list[OSError] = []

    def connect() -> None:
        try:
            transport.connect()
        except OSError as err:
            failed.append(err)

    thread = threading.Thread(target=connect)
    thread.start()
    while thread.is_alive():  # Whenever it gets into its wait, a cut ends that.
        transport.cut()
        thread.join(0.01)
    assert len(failed) == 1
    for other in others:
        other.close()


def test_a_port_that_nobody_listens_on_is_an_os_error(peer: socket.socket) -> None:
    transport = _transport(peer)
    peer.close()
    with pytest.raises(OSError, match="refused"):
        transport.connect()


def test_close_may_be_called_again(ends: tuple[StrictTransport, socket.socket]) -> None:
    transport, _ = ends
    transport.close()
    transport.close()
    assert _frame(transport) is None
