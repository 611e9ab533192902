"""SMB transport: frames over one TCP socket, every wait bounded, cut from any thread. Believes nothing about what
is inside a frame ([MS-SMB2] 2.1); replaces smbprotocol's own, which waits for ever and allocates what a stranger says.
"""

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from smbprotocol.transport import Tcp

from agent.shares.smb.seal import Buffer, Tampered
from agent.shares.smb.untyped import LibMessage

T = TypeVar("T")

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 10, 3
"""Seconds, seconds, probes: a dead host is found within 90 s even when nobody asks anything."""

USER_TIMEOUT_MS = 30_000
"""A request that the peer's kernel does not acknowledge for this long ends the connection."""


class StrictTransport(Tcp):  # type: ignore[misc]  # the library has no types
    """The socket of one connection.

    One thread receives; any number send. `cut` may come from anywhere at any time.
    """

    def __init__(self, server: str, port: int, *, max_frame: int, stall: float) -> None:
        """Prepare; nothing is opened yet.

        Args:
            server: Host name or address.
            port: TCP port.
            max_frame: Largest frame that is accepted; known before the peer is.
            stall: Seconds that a frame, a send or a connect may stand still in the middle.
        """
        super().__init__(server, port, timeout=stall)
        self._max_frame = max_frame
        self._stall = stall
        self._is_cut = False
        self._waiter = select.poll()
        self._prefix = memoryview(bytearray(4))

    def connect(self) -> None:
        """Connect to the first address that answers.

        Raises:
            OSError: None did; the last one's error.
        """
        failure: OSError = OSError(f"{self.server} has no address")
        for family, kind, proto, _, address in socket.getaddrinfo(
            self.server, self.port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, proto)
            self._sock = sock
            try:
                self._dial(sock, address)
            except OSError as err:
                sock.close()
                failure = err
            else:
                self.connected = True
                return
        raise failure

    def _dial(
        self,
        sock: socket.socket,
        address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
    ) -> None:
        """Connect one socket and give every later wait on it an end."""
        if self._is_cut:
            raise ConnectionAbortedError("cut before it was connected")
        sock.settimeout(self.timeout)
        sock.connect(address)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        limit = struct.pack("@ll", int(self._stall), int(self._stall % 1 * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._waiter.register(sock, select.POLLIN)
        if self._is_cut:
            raise ConnectionAbortedError("cut while it was connected")

    def send(self, header: LibMessage) -> None:
        """Send one message (bytes, or one of the library's structures) as a frame.

        Raises:
            OSError: The connection is gone, or the peer takes nothing for the stall time.
        """
        message = header if isinstance(header, bytes) else header.pack()
        with self._sock_lock:
            self._sock.sendall(len(message).to_bytes(4, "big") + message)

    def send_parts(self, parts: Sequence[Buffer]) -> None:
        """Send one message that lies in several pieces as a frame, without copying it.

        Raises:
            OSError: The connection is gone, or the peer takes nothing for the stall time.
        """
        size = sum(map(len, parts))
        whole = [size.to_bytes(4, "big"), *parts]
        with self._sock_lock:
            sent = self._sock.sendmsg(whole)
            if sent < 4 + size:
                self._send_rest(whole, sent)

    def _send_rest(self, whole: Sequence[Buffer], sent: int) -> None:
        for part in whole:
            if sent < len(part):
                self._sock.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def receive(self, idle: float, take: Callable[[int], T]) -> T | None:
        """Wait for the next frame and have it received.

        Args:
            idle: Seconds without a first byte after which TimeoutError is raised; the stream is still in step.
            take: Gets the frame's size and calls `fill` for all of its bytes.

        Returns:
            What `take` returned, or None when the connection has ended.

        Raises:
            TimeoutError: Nothing came for `idle` seconds.
            ConnectionError: The peer stopped in the middle of the frame.
            Tampered: The frame is larger than any answer to what we ask.
        """
        with self._close_lock:
            if not self.connected:
                return None
            if not self._waiter.poll(idle * 1000):
                raise TimeoutError(f"nothing received for {idle} s")
            if not self.fill(self._prefix):
                return None
            size = int.from_bytes(self._prefix, "big")
            if size > self._max_frame:
                raise Tampered(f"a frame of {size} bytes, at most {self._max_frame} were asked for")
            return take(size)

    def fill(self, view: memoryview) -> bool:
        """Receive exactly `view`, inside of `receive`; False at the end of the stream.

        Raises:
            ConnectionError: The peer stopped in the middle.
        """
        while view:
            try:
                count = self._sock.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError as err:
                raise ConnectionAbortedError("the server stopped in the middle of a frame") from err
            if count == len(view):
                return True
            if count == 0:
                return False
            view = view[count:]
        return True

    def cut(self) -> None:
        """End the connection at once: everybody blocked on it fails. From any thread, never blocks."""
        self._is_cut = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and free the socket, after the receiving thread has let go of it."""
        self.cut()
        with contextlib.suppress(OSError):
            super().close()
