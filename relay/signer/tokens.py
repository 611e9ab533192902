"""Enrolment tokens and who used them: rows and rules. The secret lies sealed to the vault key, never in clear."""

import hashlib
import sqlite3
from dataclasses import dataclass, field

from protocol.enrol import EnrolRequest, Token, check_proof, root_fingerprint
from protocol.errors import EnrolmentRejected
from protocol.sealing import Sealed, SealScope, seal, unseal
from relay.signer.authority import Authority

_PATH = "token.secret"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One token as the database holds it."""

    id: str
    tenant: str
    sealed: Sealed = field(repr=False)
    uses_left: int
    exp: int
    replaces: str | None


def create(
    conn: sqlite3.Connection,
    authority: Authority,
    *,
    tenant: str,
    uses: int,
    ttl_ms: int,
    replaces: str | None,
) -> tuple[Token, int]:
    """Make a token; return it whole, this once, with its end in ms UTC."""
    secret = authority.random(32)
    token = Token(f"t-{authority.random(8).hex()}", secret, root_fingerprint(authority.ring.root))
    now = authority.now()
    sealed = seal(secret, authority.keys.vault[0].public, _scope(tenant, token.id))
    conn.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (token.id, tenant, sealed.kid, sealed.ct, uses, now + ttl_ms, replaces, now),
    )
    return token, now + ttl_ms


def proven(conn: sqlite3.Connection, authority: Authority, request: EnrolRequest) -> TokenRow:
    """Return the token of a request that was made with its secret.

    Raises:
        EnrolmentRejected: No such token, or the proof does not belong to it (the answer is the same).
    """
    row = conn.execute("SELECT * FROM tokens WHERE id = ?", (request.token,)).fetchone()
    if row is None:
        raise EnrolmentRejected("the token is unknown, or the proof does not belong to it")
    sealed = Sealed(kid=row["secret_kid"], ct=row["secret_ct"])
    token = TokenRow(
        row["id"], row["tenant"], sealed, row["uses_left"], row["exp"], row["replaces"]
    )
    secret = unseal(sealed, authority.keys.vault, _scope(token.tenant, token.id))
    try:
        check_proof(request, secret)
    except EnrolmentRejected as err:
        raise EnrolmentRejected("the token is unknown, or the proof does not belong to it") from err
    return token


def used_by(conn: sqlite3.Connection, token: str, request: EnrolRequest) -> str | None:
    """Return the appliance that these very keys got with this token.

    Raises:
        EnrolmentRejected: The device key used it with another seal key.
    """
    row = conn.execute(
        "SELECT seal_key, appliance FROM token_uses WHERE token = ? AND device_key = ?",
        (token, request.device_key),
    ).fetchone()
    if row is None:
        return None
    if bytes(row["seal_key"]) != request.seal_key:
        raise EnrolmentRejected("this device key was enrolled with another seal key")
    return str(row["appliance"])


def take_use(
    conn: sqlite3.Connection, token: TokenRow, request: EnrolRequest, appliance: str, *, now: int
) -> None:
    """Count one use for these keys; `check_open` comes first."""
    conn.execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?", (token.id,))
    conn.execute(
        "INSERT INTO token_uses VALUES (?, ?, ?, ?, ?)",
        (token.id, request.device_key, request.seal_key, appliance, now),
    )


def check_open(token: TokenRow, *, now: int) -> None:
    """Raise EnrolmentRejected unless the token may be used by new keys."""
    if now > token.exp:
        raise EnrolmentRejected("the token has ended")
    if token.uses_left < 1:
        raise EnrolmentRejected("the token was used up")


def _scope(tenant: str, token: str) -> SealScope:
    return SealScope(tenant, "", hashlib.sha256(token.encode()).digest()[:16], _PATH)
