"""The local door: HTTP on a Unix socket that only the service user and root may use; `Service` answers."""

import os
import socket
import struct
from pathlib import Path

from aiohttp import web

from protocol.errors import ProtocolError
from relay.errors import RelayError
from relay.signer.errors import Forbidden
from relay.signer.handler import refusal
from relay.signer.http import MAX_BODY, Request, Response
from relay.signer.service import Service

_PEERCRED = struct.Struct("3i")


class Door:
    """Listens on the socket while it is open."""

    def __init__(self, service: Service, path: Path) -> None:
        self._service = service
        self._path = path
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Listen; an old socket file of a killed process is replaced."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)  # the file has its mode from the first moment
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stop listening and let running requests end."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _answer(self, incoming: web.Request) -> web.Response:
        try:
            _check_peer(incoming)
            body = await incoming.read()
        except (RelayError, ProtocolError) as err:
            return _sent(refusal(err))
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        request = Request(incoming.method, incoming.raw_path, headers, body, "local")
        return _sent(await self._service.answer(request))


def _check_peer(incoming: web.Request) -> None:
    """Raise Forbidden unless the other end is our own user or root, as the kernel says."""
    transport = incoming.transport
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None:
        raise Forbidden("the peer of the socket is unknown")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    _, uid, _ = _PEERCRED.unpack(raw)
    if uid not in (0, os.geteuid()):
        msg = f"user {uid} may not govern this signer"
        raise Forbidden(msg)


def _sent(response: Response) -> web.Response:
    return web.Response(status=response.status, headers=dict(response.headers), body=response.body)
