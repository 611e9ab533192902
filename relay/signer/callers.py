"""Who asks: callers with their keys and roles, and how one request is told to be theirs.

The relay's word about it counts for nothing (PROTOCOL 7): a caller is known by the signature over this very
request. Replays are made harmless by the Idempotency-Key (`relay.signer.idempotency`).
"""

import sqlite3
from dataclasses import dataclass

from protocol.caller import HEADER_CALLER, HEADER_TIME, check_request
from protocol.errors import ProtocolError
from protocol.ids import key_id
from protocol.keys import EVERY_TENANT
from relay.signer.authority import Authority
from relay.signer.errors import Forbidden, NotAuthenticated, NotFound
from relay.signer.http import Request

RANKS = {"reader": 1, "operator": 2, "admin": 3}
LOCAL = "local"
MAX_TIME_DIGITS = 16
"""Milliseconds for 300,000 years; a longer one is no number that arithmetic with seconds takes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was authenticated.

    Attributes:
        id: Key id in hex, or `local` for the peer of the unix socket.
        tenant: Whose things it may touch; "*" for the local administrator.
        role: reader, operator or admin.
        signed_at: When it signed the request, ms UTC; None if it did not.
    """

    id: str
    tenant: str
    role: str
    signed_at: int | None = None

    @property
    def scope(self) -> str | None:
        """The tenant to look things up in; None is all of them."""
        return None if self.tenant == EVERY_TENANT else self.tenant

    def check_role(self, role: str) -> None:
        """Raise Forbidden unless the caller's role is at least `role`."""
        if RANKS[self.role] < RANKS[role]:
            msg = f"this needs the role {role}; the caller is a {self.role}"
            raise Forbidden(msg)

    def check_tenant(self, tenant: str) -> None:
        """Raise NotFound unless the caller acts for this tenant: others' things do not exist for it."""
        if self.scope not in {None, tenant}:
            msg = f"no tenant {tenant}"
            raise NotFound(msg)


def authenticate(conn: sqlite3.Connection, authority: Authority, request: Request) -> Caller:
    """Return who sent this request.

    Raises:
        NotAuthenticated: Nobody that is known, a wrong signature, or one that is too old.
    """
    if HEADER_CALLER.lower() in request.headers:
        return _by_signature(conn, authority, request)
    if request.via == "local":
        return Caller(LOCAL, EVERY_TENANT, "admin")
    raise NotAuthenticated(
        "the request is not signed by a caller; a bearer token says nothing here"
    )


def _by_signature(conn: sqlite3.Connection, authority: Authority, request: Request) -> Caller:
    kid = request.headers[HEADER_CALLER.lower()]
    row = conn.execute(
        "SELECT * FROM callers WHERE kid = ? AND revoked IS NULL", (_unhex(kid),)
    ).fetchone()
    if row is None:
        raise NotAuthenticated("the caller's key is unknown or revoked")
    if len(request.headers.get(HEADER_TIME.lower(), "")) > MAX_TIME_DIGITS:
        msg = f"{HEADER_TIME} is no time"
        raise NotAuthenticated(msg)
    try:
        check_request(
            row["pub"],
            request.headers,
            method=request.method,
            path=request.target,
            body=request.body,
            now_ms=authority.now(),
        )
    except ProtocolError as err:
        raise NotAuthenticated(str(err)) from err
    signed_at = int(request.headers[HEADER_TIME.lower()])
    return Caller(bytes(row["kid"]).hex(), row["tenant"], row["role"], signed_at)


def add(
    conn: sqlite3.Connection, public: bytes, *, name: str, tenant: str, role: str, at: int
) -> bytes:
    """Register a caller's key, or change name, tenant and role of a known one; return its id."""
    kid = key_id(public)
    conn.execute(
        "INSERT INTO callers VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (kid) DO UPDATE SET "
        "name = excluded.name, tenant = excluded.tenant, role = excluded.role, revoked = NULL",
        (kid, public, name, tenant, role, at),
    )
    return kid


def revoke(conn: sqlite3.Connection, kid: bytes, *, at: int) -> None:
    """Stop to believe a caller's key.

    Raises:
        NotFound: It is not registered.
    """
    found = conn.execute(
        "UPDATE callers SET revoked = ? WHERE kid = ? AND revoked IS NULL", (at, kid)
    )
    if found.rowcount == 0:
        msg = f"no caller {kid.hex()}"
        raise NotFound(msg)


def every(conn: sqlite3.Connection) -> list[sqlite3.Row]:
    """Return all registered callers."""
    return conn.execute("SELECT * FROM callers ORDER BY created, kid").fetchall()


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
