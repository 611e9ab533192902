"""`/v1/artifacts/{sha256}`: upload in chunks with resume, download by range."""

import re
from collections.abc import AsyncIterator

from aiohttp import web

from relay.api.auth import Caller
from relay.api.context import Api, answer_json
from relay.api.models import ArtifactView
from relay.errors import BadRequest, NotFound
from relay.store.base import Artifact

OCTETS = "application/octet-stream"
CHUNK = 1024 * 1024
_RANGE = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15})", re.ASCII)


async def put_artifact(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Take a chunk (`Content-Range: bytes a-b/size`), a whole file, or the question `bytes */size`."""
    name = request.match_info["sha256"]
    sha256 = bytes.fromhex(name)
    offset, length, size = _range(request)
    store, now = api.shared.store, api.now_ms()
    held = await store.artifact(caller.tenant, sha256)
    if held is not None:
        return answer_json(ArtifactView(sha256=name, size=held.size, received=held.size))
    if length is None:
        received = await api.artifacts.received(caller.tenant, sha256)
        return answer_json(ArtifactView(sha256=name, size=size, received=received), status=202)
    received = await api.artifacts.receive(
        caller.tenant, sha256, _chunks(request), offset=offset, size=size
    )
    if received < size:
        return answer_json(ArtifactView(sha256=name, size=size, received=received), status=202)
    await store.put_artifact(caller.tenant, Artifact(sha256, size, now), actor=caller.id, now=now)
    headers = {"Location": f"/v1/artifacts/{name}"}
    view = ArtifactView(sha256=name, size=size, received=size)
    return answer_json(view, status=201, headers=headers)


async def get_artifact(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Send a finished file; aiohttp answers ranges."""
    name = request.match_info["sha256"]
    sha256 = bytes.fromhex(name)
    if await api.shared.store.artifact(caller.tenant, sha256) is None:
        raise NotFound(f"no artifact {name}")
    headers = {"Content-Type": OCTETS, "Cache-Control": "private, immutable"}
    return web.FileResponse(
        api.artifacts.path(caller.tenant, sha256), chunk_size=CHUNK, headers=headers
    )


def _range(request: web.Request) -> tuple[int, int | None, int]:
    """Return offset, length (None: a question) and size. Raises BadRequest."""
    header = request.headers.get("Content-Range")
    length = request.content_length
    if header is None:
        if length is None:
            raise BadRequest("a whole file needs Content-Length, a part needs Content-Range")
        return 0, length, length
    match = _RANGE.fullmatch(header)
    if match is None:
        raise BadRequest("Content-Range is not `bytes first-last/size` or `bytes */size`")
    size = int(match[3])
    if match[1] is None:
        return 0, None, size
    first, last = int(match[1]), int(match[2])
    if not first <= last < size or (length is not None and length != last - first + 1):
        raise BadRequest(f"Content-Range {header!r} does not fit the body or the size")
    return first, last - first + 1, size


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    async for chunk in request.content.iter_chunked(CHUNK):
        yield chunk
