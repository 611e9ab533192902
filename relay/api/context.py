"""What REST handlers use, and the small steps that they share: bodies, idempotency, pages. No route knows another."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from aiohttp import web

from relay.api.auth import Caller, Keys
from relay.artifacts import Artifacts
from relay.config import RelayConfig
from relay.desk import Shared
from relay.errors import BadCursor, BadRequest, InFlight, KeyMissing, KeyReused
from relay.limits import Buckets
from relay.store.base import Answer

IDEMPOTENCY_KEY = "Idempotency-Key"
MAX_KEY = 128
JSON = "application/json"
M = TypeVar("M", bound=msgspec.Struct)


@dataclass(slots=True)
class Api:
    """Everything behind the routes."""

    config: RelayConfig
    shared: Shared
    keys: Keys
    artifacts: Artifacts
    now_ms: Callable[[], int]
    boot_s: Callable[[], float]
    requests: Buckets
    enrolments: Buckets
    in_flight: set[tuple[str, str, str]] = field(default_factory=set)
    openapi: bytes = b""


def answer_json(
    body: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Answer with a model."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type=JSON, headers=headers
    )


def read_query(request: web.Request, model: type[M]) -> M:
    """Read the query as a model. Raises BadRequest."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise BadRequest(f"query parameter {name[:64]!r} is repeated")
        values[name] = value
    try:
        return msgspec.convert(values, model, strict=False)
    except msgspec.ValidationError as err:
        raise BadRequest(f"query: {err}") from err


def make_cursor(position: str | int) -> str:
    """Return the opaque text that continues a list behind a position."""
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> str:
    """Return a cursor's position. Raises BadCursor."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error, UnicodeError) as err:
        raise BadCursor("the cursor is not one of this relay's") from err


def number_cursor(cursor: str) -> int:
    """Return a cursor's position in a list by number, 0 for none. Raises BadCursor."""
    text = read_cursor(cursor) if cursor else "0"
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise BadCursor("the cursor is not one of this list")
    return int(text)


def idempotency_key(request: web.Request, *, required: bool) -> str:
    """Return the Idempotency-Key, "" if there is none. Raises KeyMissing, BadRequest."""
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    if not key and required:
        raise KeyMissing(f"{request.method} {request.path} needs an {IDEMPOTENCY_KEY}")
    if len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
        raise BadRequest(f"{IDEMPOTENCY_KEY} is longer than {MAX_KEY} or not printable ASCII")
    return key


@dataclass(slots=True)
class Once:
    """One request under its Idempotency-Key: use as a context, ask `found` first, `keep` the answer last."""

    api: Api
    caller: Caller
    key: str
    body_hash: bytes

    @classmethod
    def of(cls, api: Api, caller: Caller, key: str, request: web.Request, body: bytes) -> "Once":
        """Begin; method and path count as part of the body."""
        whole = f"{request.method} {request.path_qs}\n".encode() + body
        return cls(api, caller, key, hashlib.sha256(whole).digest())

    def __enter__(self) -> "Once":
        if self.key and self._slot in self.api.in_flight:
            raise InFlight("the first request with this Idempotency-Key is not answered yet")
        self.api.in_flight.add(self._slot)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.api.in_flight.discard(self._slot)

    @property
    def _slot(self) -> tuple[str, str, str]:
        return self.caller.tenant, self.caller.id, self.key

    async def found(self) -> web.Response | None:
        """Return what was answered before. Raises KeyReused."""
        if not self.key:
            return None
        answer = await self.api.shared.store.answer(
            self.caller.tenant, self.caller.id, self.key, now=self.api.now_ms()
        )
        if answer is None:
            return None
        if answer.body_hash != self.body_hash:
            raise KeyReused("this Idempotency-Key was used for another request")
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> Answer | None:
        """Return the row that keeps an answer, None without a key."""
        if not self.key:
            return None
        return Answer(self.caller.id, self.key, self.body_hash, status, headers, body)
