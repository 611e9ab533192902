"""A thin uplink: a TCP proxy that lets so many bytes a second through towards the server, for all connections together.

Frames are taken in turn, 8 KiB at a time, so that many connections share the link as on a real one.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PIECE = 8 * 1024


class _Link:
    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._free_at = max(self._free_at, now) + count / self._rate
        await asyncio.sleep(self._free_at - now)


@asynccontextmanager
async def thin_link(port: int, *, rate: int) -> AsyncIterator[int]:
    """Proxy to `port` of this machine; yields the port to connect to."""
    link = _Link(rate)

    async def pump(reader, writer, *, thin: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE):
                if thin:
                    await link.take(len(data))
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError, OSError):
            writer.close()

    async def serve(reader, writer) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, up_writer, thin=True))
            group.create_task(pump(up_reader, writer, thin=False))

    listener = socket.create_server(("127.0.0.1", 0))
    # As on a real link: what is on its way is the sender's, not in a buffer at the other end.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    server = await asyncio.start_server(serve, sock=listener, limit=PIECE)
    async with server:
        yield server.sockets[0].getsockname()[1]
