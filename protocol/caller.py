r"""Signed requests of callers: how the signer knows who asks, whatever the relay says. Pure (PROTOCOL 7).

Headers: `Imageport-Caller` (key id, hex), `Imageport-Time` (ms UTC), `Imageport-Signature` (base64 of Ed25519 over
`b"imageport/caller/v1\0" + msgpack [method, path with query, SHA-256 of the body, Idempotency-Key, time]`).
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.codec import encode
from protocol.errors import BadSignature, Malformed
from protocol.signed import SigningKey

HEADER_CALLER = "Imageport-Caller"
HEADER_TIME = "Imageport-Time"
HEADER_SIGNATURE = "Imageport-Signature"
HEADER_KEY = "Idempotency-Key"
MAX_SKEW_MS = 5 * 60 * 1000
"""A request counts for this long around the signer's clock; Idempotency-Key makes a replay harmless inside it."""


def _message(method: str, path: str, body: bytes, key: str, time_ms: int) -> bytes:
    digest = hashlib.sha256(body).digest()
    return b"imageport/caller/v1\0" + encode([method.upper(), path, digest, key, time_ms])


def sign_request(
    key: SigningKey, *, method: str, path: str, body: bytes, idempotency_key: str, now_ms: int
) -> dict[str, str]:
    """Return the headers that authenticate one request."""
    signature = key.private.sign(_message(method, path, body, idempotency_key, now_ms))
    return {
        HEADER_CALLER: key.kid.hex(),
        HEADER_TIME: str(now_ms),
        HEADER_SIGNATURE: base64.b64encode(signature).decode(),
        HEADER_KEY: idempotency_key,
    }


def check_request(
    public: bytes, headers: Mapping[str, str], *, method: str, path: str, body: bytes, now_ms: int
) -> None:
    """Verify a request against one caller's raw public key.

    Raises:
        Malformed: A header is missing or unreadable.
        BadSignature: Other request, other key, or signed more than 5 minutes from `now_ms`.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        time_ms = int(lower[HEADER_TIME.lower()])
        signature = base64.b64decode(lower[HEADER_SIGNATURE.lower()], validate=True)
    except (KeyError, ValueError, binascii.Error) as err:
        msg = f"the request lacks a readable {HEADER_TIME} or {HEADER_SIGNATURE}"
        raise Malformed(msg) from err
    if abs(now_ms - time_ms) > MAX_SKEW_MS:
        msg = f"the request was signed {(now_ms - time_ms) / 1000:.0f} s from the signer's clock, at most 300 s count"
        raise BadSignature(msg)
    message = _message(method, path, body, lower.get(HEADER_KEY.lower(), ""), time_ms)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as err:
        raise BadSignature("the request is not signed by the caller that it names") from err
