"""A man in the middle for SMB: passes frames both ways, counts them, and lets a test change them."""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

TO_CLIENT = "to client"
TO_SERVER = "to server"

Rule = Callable[[str, bytes], list[bytes]]
"""(direction, frame) -> frames to pass on instead."""

READ = 8


def pass_on(direction: str, frame: bytes) -> list[bytes]:
    """Change nothing."""
    return [frame]


@dataclass
class SmbProxy:
    """Listens on a free loopback port and forwards to `upstream`. Use as a context manager."""

    upstream: int
    rule: Rule = pass_on
    port: int = 0
    to_client: int = 0
    to_server: int = 0
    connections: int = 0
    _stalled: bool = False
    _resume: threading.Event = field(default_factory=threading.Event)
    _sockets: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "SmbProxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resume.set()
        _end(self._listener)
        for sock in list(self._sockets):
            _end(sock)
        for thread in list(self._threads):
            thread.join(10)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.upstream), timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self.connections += 1
                self._sockets += [client, server]
                self._spawn(self._pump, client, server, TO_SERVER)
                self._spawn(self._pump, server, client, TO_CLIENT)

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while frame := _receive(source):
                self._count(direction, len(frame))
                for changed in self.rule(direction, frame):
                    self._send(sink, changed)
        _end(source)
        _end(sink)

    def _send(self, sink: socket.socket, frame: bytes) -> None:
        if frame is HUGE_FRAME:
            sink.sendall(frame)
        elif self._stalled:
            sink.sendall(_framed(frame)[: len(frame) // 2])
            self._resume.wait()
        else:
            sink.sendall(_framed(frame))

    def stall(self) -> None:
        """Stop in the middle of the next frame, on every connection, until the proxy ends."""
        self._stalled = True

    def _count(self, direction: str, length: int) -> None:
        if direction == TO_CLIENT:
            self.to_client += length
        else:
            self.to_server += length


HUGE_FRAME = b"\x7f\xff\xff\xff"
"""The length of a frame of 2 GiB, sent as it is."""


def is_read_answer(direction: str, frame: bytes) -> bool:
    """Whether this is a plain answer to a READ that carries data."""
    return (
        direction == TO_CLIENT
        and frame[:4] == b"\xfeSMB"
        and int.from_bytes(frame[12:14], "little") == READ
        and frame[8:12] == bytes(4)
    )


def _framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def _receive(sock: socket.socket) -> bytes:
    prefix = _exactly(sock, 4)
    return _exactly(sock, int.from_bytes(prefix, "big")) if prefix else b""


def _exactly(sock: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        count = sock.recv_into(view[done:])
        if count == 0:
            return b""
        done += count
    return bytes(data)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
