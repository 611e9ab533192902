"""A route as a value: what it takes, who may, what it answers. Router and OpenAPI document come from the same table."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
from aiohttp import web

from protocol.errors import ProtocolError
from relay.api.auth import Caller
from relay.api.context import Api
from relay.api.models import NoQuery
from relay.config import Role
from relay.errors import RateLimited, RelayError, Unauthorized, UnsupportedMedia
from relay.problems import problem
from relay.wire import vouch

NOBODY = Caller("", "", "reader")
"""The caller of a route that needs no key."""

Handler: TypeAlias = Callable[[Api, Caller, web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        role: Least role of the API key; None: no key.
        query: Struct of the query's parameters.
        body: Content types that the body may have, each with its struct (None: raw bytes).
        answers: Status -> content type and struct (None: raw bytes) of the good answers.
        errors: Codes of the problems that this route may answer besides 400, 401, 403, 429 and 5xx.
        keyed: Takes an Idempotency-Key; True: needs it.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    role: Role | None = "reader"
    query: type[msgspec.Struct] = NoQuery
    body: dict[str, type[msgspec.Struct] | None] = field(default_factory=dict)
    answers: dict[int, tuple[str, type[msgspec.Struct] | None]] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    keyed: bool | None = None

    @property
    def router_path(self) -> str:
        """The path as aiohttp's router takes it: ids are hex of their exact length."""
        return (
            self.path.replace("{id}", "{id:[0-9a-f]{32}}")
            .replace("{sha256}", "{sha256:[0-9a-f]{64}}")
            .replace("{appliance}", "{appliance:[a-z0-9-]{1,64}}")
        )


def bind(api: Api, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler for aiohttp: authenticates, limits, counts, then runs the route's own."""
    metrics = api.shared.metrics
    seconds = metrics.seconds.labels(route=route.path)

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = NOBODY
        if route.role is not None:
            try:
                caller = api.keys.caller(request.headers.get("Authorization"), role=route.role)
            except Unauthorized as err:
                return _closing(problem(err))
            vouch(request)
            limit(api, caller)
        if "Content-Encoding" in request.headers:
            raise UnsupportedMedia("a body with a Content-Encoding; send it as it is")
        return await route.handler(api, caller, request)

    async def count(request: web.Request) -> web.StreamResponse:
        began, status = time.perf_counter(), "error"
        try:
            answer = await handle(request)
            status = str(answer.status)
        except web.HTTPException as err:
            status = str(err.status)
            raise
        except (RelayError, ProtocolError) as err:
            status = str(err.http_status)
            raise
        else:
            return answer
        finally:
            metrics.requests.labels(route=route.path, status=status).inc()
            seconds.observe(time.perf_counter() - began)

    return count


def limit(api: Api, caller: Caller) -> None:
    """Take one request from the key's account. Raises RateLimited."""
    wait = api.requests.take(caller.id, now=api.boot_s())
    if wait:
        raise RateLimited(
            f"API key {caller.id} sends more than {api.requests.rate:g} requests a second",
            retry_after=int(wait) + 1,
        )


def _closing(answer: web.Response) -> web.Response:
    """End the connection of somebody unknown instead of reading the body that they may still send."""
    answer.force_close()
    return answer
