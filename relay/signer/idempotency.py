"""The Idempotency-Key: a request that comes again gets its first answer again and makes nothing new.

The row is written in the transaction that does the work, and kept for ever: whoever replays a request after
any time finds it answered. Refusals are not kept; they make nothing, and may be different next time.
"""

import hashlib
import sqlite3
from collections.abc import Iterable

import msgspec

from protocol.caller import HEADER_KEY
from protocol.codec import encode
from relay.signer.errors import KeyMissing, KeyReused
from relay.signer.http import Request, Response

MAX_KEY = 128


def key_of(request: Request) -> str:
    """Return the request's Idempotency-Key.

    Raises:
        KeyMissing: There is none, or it is no short printable text.
    """
    key = request.headers.get(HEADER_KEY.lower(), "")
    if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        msg = f"{request.method} {request.path} needs an Idempotency-Key"
        raise KeyMissing(msg)
    return key


def answered(
    conn: sqlite3.Connection, request: Request, *, tenant: str, caller: str
) -> Response | None:
    """Return the first answer to this request, None if it is new.

    Raises:
        KeyMissing, KeyReused: No key, or the key of another request.
    """
    key = key_of(request)
    row = conn.execute(
        "SELECT * FROM idempotency WHERE tenant = ? AND caller = ? AND key = ?",
        (tenant, caller, key),
    ).fetchone()
    if row is None:
        return None
    if bytes(row["body_digest"]) != _digest(request):
        msg = f"Idempotency-Key {key!r} was used for another request"
        raise KeyReused(msg)
    headers = msgspec.msgpack.decode(row["headers"], type=dict[str, str])
    return Response(row["status"], headers, bytes(row["body"]))


def remember(
    conn: sqlite3.Connection,
    request: Request,
    response: Response,
    *,
    tenant: str,
    caller: str,
    command_ids: Iterable[bytes],
    at: int,
) -> None:
    """Keep the answer for whoever asks the same again."""
    conn.execute(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(tenant, caller, key_of(request), _digest(request), encode(list(command_ids))),
            *(response.status, msgspec.msgpack.encode(dict(response.headers)), response.body, at),
        ),
    )


def _digest(request: Request) -> bytes:
    body = hashlib.sha256(request.body).digest()
    return hashlib.sha256(encode([request.method, request.target, body])).digest()
