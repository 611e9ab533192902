"""The aiohttp shell of a simulator: turns requests into Calls, lets faults happen, sends Replies.

Knows no rule of any cloud: planes do. Built on `aiohttp.web.Server` without a router or access log, because the
simulator is also the sink of the benchmark.
"""

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import ClientError, web

from appliance.sim.call import Call, Plane, Refusal, Reply
from appliance.sim.faults import MARKS, Fault, FaultEngine, FaultPlan
from appliance.sim.stats import Stats

PIECES = 3
"""Of a trickled answer."""
READ_BUFFER = 1 << 20
"""Bytes of a body that aiohttp takes before it stops reading from the socket."""

BODY_MOST = 8 << 20
"""Larger bodies are refused before they are read, whatever the operation."""


def azure_slow(_operation: str) -> Refusal:
    """Return how Azure says that a body came too slowly."""
    return Refusal(500, "OperationTimedOut", "Operation could not be completed in time.")


def azure_busy(_operation: str) -> Refusal:
    """Return how Azure says that it is too much."""
    return Refusal(503, "ServerBusy", "The server is busy.")


class _Cut(Exception):
    """An injected fault wants the connection cut now."""


class _Body:
    """The body of an aiohttp request; sends `100 Continue` when the client waits for it."""

    def __init__(self, request: web.BaseRequest, most: int) -> None:
        self._request = request
        self._most = most

    async def read(self) -> list[bytes]:
        """Return all chunks, as `Body.read`."""
        request = self._request
        if (request.content_length or 0) > self._most:
            raise Refusal(413, "RequestBodyTooLarge", "The request body is too large.")
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks = []
        while chunk := await request.content.readany():
            chunks.append(chunk)
        return chunks


class SimServer:
    """Serves one simulator on one address.

    Args:
        route: Finds the plane of a request.
        plan: Faults to begin with.
        expire: Called by the faults `expire-sas` and `expire-credentials`.
        clock: Seconds since the epoch.
        busy: How the service says that an operation is over the plan's limit.
        slow: How it says that a body took too long.
        body_most: Bytes of a body; more is refused before it is read.
    """

    def __init__(
        self,
        route: Callable[[Call], Plane],
        plan: FaultPlan,
        *,
        stats: Stats,
        expire: Callable[[], None],
        clock: Callable[[], float],
        busy: Callable[[str], Refusal] = azure_busy,
        slow: Callable[[str], Refusal] = azure_slow,
        body_most: int = BODY_MOST,
    ) -> None:
        self._route = route
        self._stats = stats
        self._expire = expire
        self._clock = clock
        self._busy = busy
        self._slow = slow
        self._body_most = body_most
        self.engine = FaultEngine(plan)
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; return the port."""
        server = web.Server(
            self._handle, access_log=None, read_bufsize=READ_BUFFER, auto_decompress=False
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._runner is not None:
            server = self._runner.server
            for connection in server.connections if server is not None else ():
                if connection.transport is not None:
                    connection.transport.abort()  # TLS would wait for a client's goodbye
            await self._runner.cleanup()
            self._runner = None

    def set_faults(self, plan: FaultPlan) -> None:
        """Replace the plan; its counters begin anew."""
        self.engine = FaultEngine(plan)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = self._call(request)
        plane = self._route(call)
        operation = plane.operation(call)
        self._stats.begin(operation)
        try:
            return await self._faulty(request, call, plane, operation)
        except (_Cut, ConnectionError, ClientError, web.RequestPayloadError):
            return _cut(request)
        finally:
            self._stats.inflight -= 1

    def _call(self, request: web.BaseRequest) -> Call:
        query: dict[str, str] = {}
        for name, value in request.query.items():
            query.setdefault(name, value)
        return Call(
            method=request.method,
            path=request.rel_url.raw_path,
            query=query,
            headers=request.headers,
            host=request.host,
            scheme=request.scheme,
            client=request.remote or "",
            length=request.content_length,
            body=_Body(request, self._body_most),
            now=self._clock(),
            repeated={name: request.query.getall(name) for name in query},
        )

    async def _faulty(
        self, request: web.BaseRequest, call: Call, plane: Plane, operation: str
    ) -> web.StreamResponse:
        if operation.startswith("sim."):
            return await _send(request, await self._answer(call, plane, operation))
        faults = list(self.engine.faults(op=operation, method=call.method, path=call.path))
        early = await self._before(call, plane, operation, faults)
        reply = early or await self._answer(call, plane, operation)
        return await self._after(request, reply, [] if early else faults)

    async def _before(
        self, call: Call, plane: Plane, operation: str, faults: list[Fault]
    ) -> Reply | None:
        """Let happen what happens before the work; a Reply here stands for the work."""
        for fault in faults:
            self._stats.faults[fault.action] += 1
            if fault.action in MARKS:
                call.marks.add(fault.action)
            if fault.action in ("drop-after-body", "status"):
                await call.body.read()
            if fault.action in ("drop-before-body", "drop-after-body"):
                raise _Cut
            if fault.action == "delay":
                await asyncio.sleep(fault.seconds)
            if fault.action in ("expire-sas", "expire-credentials"):
                self._expire()
            if fault.action == "status":
                message = "Injected by the simulator's fault plan."
                refusal = Refusal(
                    fault.status, fault.code, message, headers=_retry(fault.retry_after)
                )
                return self._refused(call, plane, operation, refusal)
        if self.engine.throttled(op=operation, length=call.length or 0, now=call.now):
            self._stats.faults["throttle"] += 1
            await call.body.read()
            busy = self._busy(operation)
            busy.headers = _retry(self.engine.plan.throttle.retry_after)
            return self._refused(call, plane, operation, busy)
        return None

    async def _answer(self, call: Call, plane: Plane, operation: str) -> Reply:
        try:
            async with asyncio.timeout(self.engine.patience(operation)):
                return await plane.answer(call)
        except TimeoutError:
            return self._refused(call, plane, operation, self._slow(operation))
        except Refusal as refusal:
            return self._refused(call, plane, operation, refusal)
        except ConnectionError:
            raise
        except OSError as err:
            message = f"The simulator's own disk failed: {err.strerror or err}"
            return self._refused(call, plane, operation, Refusal(500, "InternalError", message))

    def _refused(self, call: Call, plane: Plane, operation: str, refusal: Refusal) -> Reply:
        self._stats.refusals[f"{operation} {refusal.code}"] += 1
        return plane.refuse(call, refusal)

    async def _after(
        self, request: web.BaseRequest, reply: Reply, faults: list[Fault]
    ) -> web.StreamResponse:
        actions = {fault.action for fault in faults}
        if "drop-after-write" in actions:
            raise _Cut
        if "wrong-etag" in actions and "ETag" in reply.headers:
            reply.headers["ETag"] = '"0x8D0000000000BAD"'
        if "corrupt" in actions and reply.body:
            middle = len(reply.body) // 2
            flipped = bytes([reply.body[middle] ^ 1])
            reply.body = reply.body[:middle] + flipped + reply.body[middle + 1 :]
        if "late" in actions:
            await asyncio.sleep(max(f.seconds for f in faults))
        if "truncate" in actions:
            return await _truncate(request, reply)
        if "trickle" in actions and reply.body:
            return await _trickle(request, reply, max(f.seconds for f in faults))
        return await _send(request, reply)


def _retry(seconds: int | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(seconds)}


async def _send(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    if reply.stream is None:
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = reply.stream_length
    await response.prepare(request)
    for piece in reply.stream:
        await response.write(piece)
    await response.write_eof()
    return response


async def _truncate(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = reply.stream_length or len(reply.body)
    if not reply.body and not reply.stream_length:
        return _cut(request)  # half of nothing: the header is torn
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    return _cut(request)


async def _trickle(request: web.BaseRequest, reply: Reply, seconds: float) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    size = -(-len(reply.body) // PIECES)
    for start in range(0, len(reply.body), size):
        await response.write(reply.body[start : start + size])
        await asyncio.sleep(seconds)
    await response.write_eof()
    return response


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
