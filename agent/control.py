"""The local control socket: JSON lines for `imageport status` and `sweep`. Orders come by signature only.

One request line `{"get": NAME, ...}`, one answer line. Who may open the socket (its folder is mode 0700) may read it.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

MAX_LINE = 64 * 1024
READ_S = 10.0

Answerer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Request -> answer; raises nothing that is not a bug."""


async def serve(path: str, answers: Mapping[str, Answerer]) -> None:
    """Serve until cancelled. A leading `@` is an abstract socket; a stale file of a killed agent is replaced."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _handle(reader, writer, answers)

    with _bound(path) as listener:
        server = await asyncio.start_unix_server(handle, sock=listener, limit=MAX_LINE)
        async with server:
            await server.serve_forever()


async def ask(path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a running agent.

    Raises:
        OSError: No agent listens there.
    """
    reader, writer = await asyncio.open_unix_connection(_address(path), limit=16 * MAX_LINE)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    answer: dict[str, Any] = json.loads(line or b"{}")
    return answer


def _bound(path: str) -> socket.socket:
    """Return a socket that nobody but this user can connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if path.startswith("@"):
        listener.bind(_address(path))
        return listener
    Path(path).unlink(missing_ok=True)  # the journal's lock says that nobody serves it
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    return listener


async def _handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Mapping[str, Answerer]
) -> None:
    try:
        async with asyncio.timeout(READ_S):
            line = await reader.readline()
        answer = await _answer(line, answers)
        writer.write(json.dumps(answer, default=str).encode() + b"\n")
        await writer.drain()
    except (OSError, TimeoutError, ValueError) as err:  # ValueError: a line above the limit
        structlog.get_logger("control").info("control request dropped", error=type(err).__name__)
    finally:
        writer.close()


async def _answer(line: bytes, answers: Mapping[str, Answerer]) -> Mapping[str, Any]:
    try:
        request = json.loads(line)
        name = request["get"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"error": 'expected a line {"get": NAME}'}
    answerer = answers.get(name) if isinstance(name, str) else None
    if answerer is None:
        return {"error": f"unknown request; known are {', '.join(sorted(answers))}"}
    return await answerer(request)


def _address(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path
