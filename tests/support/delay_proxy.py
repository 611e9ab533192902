"""A long way to a server: what goes through arrives a fixed time later, both ways; bandwidth is not limited.

Run as `python -m tests.support.delay_proxy UPSTREAM_PORT SECONDS`; prints its port. A process of its own, so that its
work is not counted with anybody's.
"""

import contextlib
import fcntl
import os
import select
import socket
import sys
import threading
import time
from collections import deque

PIPE = 1024 * 1024
PIPES = 64
"""Of one direction: more bytes than any bandwidth here times any delay of ours. What waits stays in the kernel."""


class _Way:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self._source, self._sink, self._delay = source, sink, delay
        self._waiting: deque[tuple[float, tuple[int, int], int]] = deque()
        self._free: deque[tuple[int, int]] = deque()
        for _ in range(PIPES):
            pipe = os.pipe()
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
            self._free.append(pipe)
        self._changed = threading.Condition()
        threading.Thread(target=self._take, daemon=True).start()
        threading.Thread(target=self._give, daemon=True).start()

    def _take(self) -> None:
        count = 1
        while count:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._free))
                pipe = self._free.popleft()
            count = self._fill(pipe[1])
            with self._changed:
                self._waiting.append((time.monotonic() + self._delay, pipe, count))
                self._changed.notify_all()

    def _fill(self, end: int) -> int:
        """Wait for something and move what is there, a pipe full at most; 0 at the end of the stream."""
        source, count = self._source.fileno(), 0
        try:
            _wait(source, select.POLLIN)
            while count < PIPE:
                more = os.splice(source, end, PIPE - count, flags=os.SPLICE_F_NONBLOCK)
                if not more:
                    break
                count += more
        except OSError:
            pass  # Nothing more is there, or the connection is gone, which the next call finds out.
        return count

    def _give(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                due, pipe, count = self._waiting.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not count:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                while count:
                    _wait(self._sink.fileno(), select.POLLOUT)
                    with contextlib.suppress(BlockingIOError):
                        count -= os.splice(pipe[0], self._sink.fileno(), count)
            except OSError:
                return
            with self._changed:
                self._free.append(pipe)
                self._changed.notify_all()


def _wait(fd: int, event: int) -> None:
    waiter = select.poll()
    waiter.register(fd, event)
    waiter.poll()


def main() -> None:
    """Serve until killed."""
    upstream, delay = int(sys.argv[1]), float(sys.argv[2]) / 2
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", upstream))
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        _Way(client, server, delay)
        _Way(server, client, delay)


if __name__ == "__main__":
    main()
