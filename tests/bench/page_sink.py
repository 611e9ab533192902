"""A page-blob service that takes everything and keeps nothing: the sink that upload benchmarks share. Not a simulator.

It answers what azcopy and our client ask around the pages (create, properties, page ranges) just well enough for both
to end successfully, and notes when the first and the last page arrived: a client's end-of-job ticks do not count.
Run as `python -m tests.bench.page_sink`; prints its port, then one JSON line for every `GET /report`.
"""

import asyncio
import json
import re
import sys
import time
from urllib.parse import parse_qs, urlsplit

READ = 1 << 20
DATE = b"Wed, 25 Nov 2026 10:00:00 GMT"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER = re.compile(rb"\r\n(x-ms-[a-z-]+[a-z0-9_-]*): *([^\r]*)", re.IGNORECASE)

blobs: dict[str, dict[str, bytes]] = {}
seen = {"bytes": 0, "puts": 0, "first": 0.0, "last": 0.0}


class Sink(asyncio.BufferedProtocol):
    """One connection: parses heads, swallows bodies."""

    def __init__(self) -> None:
        self.room = bytearray(READ)
        self.head = b""
        self.left = 0
        self.request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, _hint: int) -> bytearray:
        return self.room

    def buffer_updated(self, count: int) -> None:
        data = memoryview(self.room)[:count]
        while len(data):
            if self.left:
                taken = min(self.left, len(data))
                self.left -= taken
                data = data[taken:]
                if not self.left:
                    self.answer()
                continue
            self.head += bytes(data)
            data = data[:0]
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            rest, self.request = self.head[end + 4 :], self.head[:end]
            self.head = b""
            found = _LENGTH.search(self.request)
            self.left = int(found[1]) if found else 0
            if b"\r\nexpect: 100-continue" in self.request.lower():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if not self.left:
                self.answer()
            data = memoryview(rest)

    def answer(self) -> None:
        method, target, _ = self.request.split(b"\r\n", 1)[0].split(b" ", 2)
        parts = urlsplit(target.decode())
        comp = parse_qs(parts.query).get("comp", [""])[0]
        headers = {k.lower(): v for k, v in _HEADER.findall(self.request)}
        if method == b"PUT" and comp == "page":
            self.page()
        elif method == b"PUT" and not comp:
            blobs[parts.path] = headers
            self.reply(201)
        elif method == b"PUT":
            self.reply(200)
        elif method == b"HEAD":
            self.properties(parts.path)
        elif parts.path == "/report":
            self.reply(200, body=json.dumps(seen).encode())
            seen.update(bytes=0, puts=0, first=0.0, last=0.0)
        elif comp == "pagelist":
            self.reply(200, body=b"<?xml version='1.0'?><PageList></PageList>")
        else:
            self.reply(404, b"x-ms-error-code: BlobNotFound\r\n")

    def page(self) -> None:
        now = time.monotonic()
        found = _LENGTH.search(self.request)
        seen["bytes"] += int(found[1]) if found else 0
        seen["puts"] += 1
        seen["first"] = seen["first"] or now
        seen["last"] = now
        self.reply(201)

    def properties(self, path: str) -> None:
        blob = blobs.get(path)
        if blob is None:
            self.transport.write(
                b"HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\nContent-Length: 0\r\n\r\n"
            )
            return
        extra = b"x-ms-blob-type: PageBlob\r\nx-ms-creation-time: " + DATE + b"\r\n"
        extra += b"Content-Type: application/octet-stream\r\n"
        for name, value in blob.items():
            if name.startswith(b"x-ms-meta-"):
                extra += name + b": " + value + b"\r\n"
        self.reply(200, extra, length=int(blob[b"x-ms-blob-content-length"]))

    def reply(
        self, status: int, extra: bytes = b"", *, body: bytes = b"", length: int | None = None
    ) -> None:
        size = len(body) if length is None else length
        self.transport.write(
            b'HTTP/1.1 %d X\r\nContent-Length: %d\r\nETag: "0x1"\r\nLast-Modified: %b\r\nDate: %b\r\n'
            b"x-ms-version: 2021-12-02\r\nx-ms-request-id: 1\r\n%b\r\n%b"
            % (status, size, DATE, DATE, extra, body)
        )


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
