"""`POST /v1/commands`: finished envelopes into the queue. Verified as a courtesy, never signed here."""

import asyncio

import msgspec
from aiohttp import web

from protocol.messages import MAX_COMMAND
from relay.api.auth import Caller
from relay.api.context import JSON, Api, Once, idempotency_key
from relay.api.models import CommandAnswer, CommandBody
from relay.errors import BadRequest, NotFound, TooLarge, UnsupportedMedia
from relay.store.base import Command

MSGPACK = "application/msgpack"
MAX_BODY = 2 * MAX_COMMAND
"""Base64 in JSON is a third longer than the envelope."""
TURNS = 3
"""Turns of the loop in which the stored command goes out to its agent, before the answer to its sender is written: the
agent's commit is what takes time, so it begins first (tests/bench/test_command.py: 4 % of the whole way)."""


async def post_command(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Queue one envelope; the same one again gets the same answer."""
    key = idempotency_key(request, required=False)
    body = await read_body(request, MAX_BODY)
    with Once.of(api, caller, key, request, body) as once:
        before = await once.found()
        if before is not None:
            return before
        intake = api.shared.intake
        row = await intake.read_command(_envelope(request, body), caller.tenant)
        if await intake.record(row.tenant, row.appliance) is None:
            raise NotFound(f"no appliance {row.appliance}", appliance=row.appliance)
        headers = {"Location": f"/v1/jobs/{row.id.hex()}", "Content-Type": JSON}
        answer = msgspec.json.encode(_view(row))
        await intake.add(row, actor=caller.id, answer=once.answer(202, headers, answer))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return web.Response(body=answer, status=202, headers=headers)


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises TooLarge."""
    if (request.content_length or 0) > limit:
        raise TooLarge(f"{request.content_length} bytes, at most {limit} allowed", limit=limit)
    if request.content_length is not None and limit <= request.client_max_size:
        return await request.read()
    body = bytearray()
    async for chunk in request.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"more than {limit} bytes", limit=limit)
    return bytes(body)


def _envelope(request: web.Request, body: bytes) -> bytes:
    if request.content_type == MSGPACK:
        return body
    if request.content_type != JSON:
        raise UnsupportedMedia(f"expected {MSGPACK} or {JSON}, found {request.content_type}")
    try:
        return msgspec.json.decode(body, type=CommandBody).envelope
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise BadRequest(f"body: {err}") from err


def _view(row: Command) -> CommandAnswer:
    return CommandAnswer(
        id=row.id.hex(),
        digest=row.digest.hex(),
        appliance=row.appliance,
        epoch=row.epoch,
        seq=row.seq,
    )
