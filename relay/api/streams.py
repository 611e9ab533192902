"""Server-sent events: `GET /v1/jobs/{id}/events` and `GET /v1/events`. Reads the store whenever the hub says so.

A client that comes back with `Last-Event-ID` gets every state change that it missed and the latest progress of each
job. The stream of one job ends with the job; asked for again after its end, it answers 204, so that browsers stop.
"""

import asyncio
from collections.abc import Iterable

from aiohttp import web

from relay.api.auth import Caller
from relay.api.context import Api, read_query
from relay.api.jobs import find
from relay.api.models import StreamQuery
from relay.errors import BadRequest, RateLimited
from relay.store import rules
from relay.store.base import LogEvent

HEARTBEAT_S = 15.0
WRITE_S = 60.0
"""A client that takes nothing for so long is gone."""
PAUSE_S = 0.1
"""Events that come together are read together: at most ten reads a second and stream."""
BATCH = 100
"""Events read and written at once, some 100 KiB: what a client that does not read costs."""


async def job_events(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Stream one job's events to its end."""
    job = await find(api, caller, request)
    after = _after(request, 0)
    if job.state in rules.FINAL_STATES and not await api.shared.store.events(
        caller.tenant, after=after, limit=1, job=job.id
    ):
        return web.Response(status=204)
    return await _stream(api, caller, request, after=after, job=job.id)


async def tenant_events(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Stream everything of the tenant, from now on unless the client says from where."""
    return await _stream(
        api, caller, request, after=_after(request, api.now_ms() * 1000 - 1), job=b""
    )


def _after(request: web.Request, default: int) -> int:
    query = read_query(request, StreamQuery)
    header = request.headers.get("Last-Event-ID", "")
    if not header:
        return default if query.after is None else query.after
    if not header.isascii() or not header.isdecimal() or len(header) > 16:
        raise BadRequest("Last-Event-ID is not one of this relay's")
    return int(header)


async def _stream(
    api: Api, caller: Caller, request: web.Request, *, after: int, job: bytes
) -> web.StreamResponse:
    hub = api.shared.hub
    if hub.count(caller.tenant) >= api.config.limits.streams:
        raise RateLimited(f"{hub.count(caller.tenant)} event streams are open", retry_after=5)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    with hub.subscribe(caller.tenant) as changes, api.shared.metrics.streams.track_inprogress():
        await response.prepare(request)
        await response.write(b": open\n\n")
        wrote = api.boot_s()
        while not hub.closed and request.transport is not None:
            events = await api.shared.store.events(caller.tenant, after=after, limit=BATCH, job=job)
            if events:
                after = events[-1].id
                await _write(response, _text(events))
                wrote = api.boot_s()
                if job and _ends(events):
                    break
            if len(events) == BATCH:
                continue
            await asyncio.sleep(PAUSE_S)
            # Changes of other jobs wake this stream too: they are no news, and no sign of life for its client.
            await changes.wait(max(wrote + HEARTBEAT_S - api.boot_s(), 0.0))
            if api.boot_s() - wrote >= HEARTBEAT_S:
                await _write(response, b": heartbeat\n\n")
                wrote = api.boot_s()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Write, or give the connection up: `response.write` waits for a slow client."""
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(data)
    except TimeoutError as err:
        raise ConnectionResetError("the event stream's client does not read") from err


def _text(events: Iterable[LogEvent]) -> bytes:
    return b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), event.data)
        for event in events
    )


def _ends(events: Iterable[LogEvent]) -> bool:
    """Whether one of a single job's events is its end: only results set a final state."""
    return any(
        event.kind == "state" and rules.state_of(event.data) in rules.FINAL_STATES
        for event in events
    )
