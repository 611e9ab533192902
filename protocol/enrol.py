"""Enrolment: the one-use token and the proof that an appliance's keys belong to its holder. Pure (PROTOCOL 7).

Token text = `<id>.<secret>.<root fingerprint>`: id for the relay to find it, 32 secret bytes (base64url) that the relay
never sees, and SHA-256 of the root key (base32) that the appliance pins. MAC = HMAC-SHA-256(secret, msgpack
["imageport/enrol/v1", token id, device key, seal key, nonce]).
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Literal

from protocol.codec import encode
from protocol.errors import EnrolmentRejected
from protocol.ids import Bytes16, Bytes32, Digest, IdText
from protocol.messages import Layout

_ID = re.compile(r"[a-z0-9-]{1,64}")
_DOMAIN = "imageport/enrol/v1"


def root_fingerprint(root: bytes) -> str:
    """Return the fingerprint of a raw public root key: base32 of SHA-256, lower case, no padding (52 letters)."""
    return base64.b32encode(hashlib.sha256(root).digest()).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Token:
    """An enrolment token, whole."""

    id: str
    secret: bytes = field(repr=False)
    root_fingerprint: str

    def text(self) -> str:
        """Return what the administrator copies to the appliance."""
        secret = base64.urlsafe_b64encode(self.secret).decode().rstrip("=")
        return f"{self.id}.{secret}.{self.root_fingerprint}"


def parse_token(text: str) -> Token:
    """Read a token's text.

    Raises:
        EnrolmentRejected: It is not `id.secret.fingerprint`; the text is never repeated in the message.
    """
    parts = text.strip().split(".")
    try:
        token_id, secret_text, fingerprint = parts
        secret = base64.b64decode(
            secret_text + "=" * (-len(secret_text) % 4), altchars=b"-_", validate=True
        )
    except ValueError as err:
        raise EnrolmentRejected("the token is not of the form id.secret.fingerprint") from err
    if not _ID.fullmatch(token_id) or len(secret) != 32 or len(fingerprint) != 52:
        raise EnrolmentRejected("the token is not of the form id.secret.fingerprint, or was cut")
    return Token(token_id, secret, fingerprint)


class EnrolRequest(Layout, frozen=True, kw_only=True):
    """What the appliance sends; the relay passes it to the signer unread."""

    v: Literal[1]
    token: IdText
    device_key: Bytes32
    seal_key: Bytes32
    nonce: Bytes16
    mac: Digest
    name: IdText | None = None


class EnrolAnswer(Layout, frozen=True, kw_only=True):
    """What the signer answers: its key manifest, the appliance's record (both envelopes) and the root key itself."""

    v: Literal[1]
    root: Bytes32
    manifest: bytes
    record: bytes


def proof(token_id: str, secret: bytes, device_key: bytes, seal_key: bytes, nonce: bytes) -> bytes:
    """Return the MAC that binds both public keys to the token's holder."""
    message = encode([_DOMAIN, token_id, device_key, seal_key, nonce])
    return hmac.new(secret, message, hashlib.sha256).digest()


def check_proof(request: EnrolRequest, secret: bytes) -> None:
    """Raise EnrolmentRejected unless the request's MAC was made with `secret`."""
    expected = proof(request.token, secret, request.device_key, request.seal_key, request.nonce)
    if not hmac.compare_digest(expected, request.mac):
        raise EnrolmentRejected("the proof does not belong to this token")
