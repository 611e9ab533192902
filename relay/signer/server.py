"""The unix socket of the local administrator: only the service user and root may speak. HTTP in, HTTP out."""

import os
import socket
import struct
from pathlib import Path

import structlog
from aiohttp import web

from relay.signer.errors import BadConfig, Forbidden
from relay.signer.handler import refusal
from relay.signer.http import MAX_BODY, Request, Response
from relay.signer.service import Service

log = structlog.get_logger(__name__)

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""


async def serve(service: Service, path: Path) -> web.AppRunner:
    """Listen on the socket; the runner's `cleanup` ends it.

    Raises:
        BadConfig: Somebody else listens there, or the folder cannot be used.
    """

    async def answer(request: web.Request) -> web.Response:
        return _shown(await _answer(service, request))

    app = web.Application(client_max_size=MAX_BODY + 1)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.SockSite(runner, _listen(path)).start()
    except OSError as err:
        await runner.cleanup()
        msg = f"cannot listen on {path}: {err.strerror or err}"
        raise BadConfig(msg) from err
    return runner


async def _answer(service: Service, request: web.Request) -> Response:
    uid = _peer_uid(request)
    if uid not in {0, os.geteuid()}:
        log.warning("local request refused", uid=uid)
        msg = f"user {uid} may not govern the signer; its own user and root may"
        return refusal(Forbidden(msg))
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        body = bytes(MAX_BODY + 1)  # the handler says what is wrong with it
    headers = {name.lower(): value for name, value in request.headers.items()}
    return await service.answer(
        Request(request.method.upper(), request.raw_path, headers, body, "local")
    )


def _peer_uid(request: web.Request) -> int:
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None:
        return -1
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_socket():
        _check_abandoned(path)
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


def _check_abandoned(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    msg = f"a signer runs already: somebody answers on {path}"
    raise BadConfig(msg)


def _shown(response: Response) -> web.Response:
    return web.Response(status=response.status, headers=dict(response.headers), body=response.body)
