r"""Signed things: `{v, k, p, s}` around opaque bytes. Verify first, decode the payload afterwards. No I/O (PROTOCOL 2).

| field | bytes | meaning |
|---|---|---|
| v | int | envelope version, 1 |
| k | 16 | first bytes of SHA-256(public key): a look-up hint only |
| p | any | the payload, opaque until the signature was verified |
| s | 64 | Ed25519 over `b"imageport/<kind>/v1\0" + p` |
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.codec import decode, encode
from protocol.errors import BadSignature
from protocol.ids import Bytes16, KeyId, digest_of, key_id
from protocol.messages import Kind, Layout

ENVELOPE_OVERHEAD = 256
"""Room for v, k, s and the map around the payload."""

T = TypeVar("T")


class Envelope(Layout, frozen=True, kw_only=True):
    """A payload with its signature, decoded from the wire but not verified."""

    v: Literal[1]
    k: Bytes16
    p: bytes
    s: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: the name of what was signed."""
        return digest_of(self.p)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key with its id. Never printed."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """Load a key from its 32 raw private bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The 32 raw private bytes, for a key file of mode 0600."""
        return self.private.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def kid(self) -> KeyId:
        """The key's id."""
        return key_id(self.public)


def signed_bytes(kind: Kind, payload: bytes) -> bytes:
    """Return what the signature is over: the kind's domain prefix and the exact payload."""
    return b"imageport/" + kind.value.encode() + b"/v1\0" + payload


def seal_envelope(kind: Kind, payload: bytes, key: SigningKey) -> bytes:
    """Sign `payload` as `kind` and return the envelope's bytes."""
    signature = key.private.sign(signed_bytes(kind, payload))
    return encode(Envelope(v=1, k=key.kid, p=payload, s=signature))


def sign(kind: Kind, layout: Layout, key: SigningKey) -> bytes:
    """Encode a layout, sign it as `kind` and return the envelope's bytes."""
    return seal_envelope(kind, encode(layout), key)


def parse_envelope(data: bytes, *, limit: int) -> Envelope:
    """Decode an envelope without verifying it; `limit` is the limit of its payload's kind."""
    return decode(data, Envelope, limit=limit + ENVELOPE_OVERHEAD)


def verify(kind: Kind, envelope: Envelope, public: bytes) -> None:
    """Check the signature against one raw public key.

    Raises:
        BadSignature: Other bytes, other kind or other key.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(envelope.s, signed_bytes(kind, envelope.p))
    except (InvalidSignature, ValueError) as err:
        msg = f"{kind.value} {envelope.digest.hex()[:16]} is not signed by key {envelope.k.hex()[:16]}"
        raise BadSignature(msg, kind=kind.value) from err


def open_statement(
    kind: Kind, data: bytes, type_: type[T], *, public: bytes, limit: int
) -> tuple[Envelope, T]:
    """Parse, verify against a known public key, then decode: for statements of a device.

    Raises:
        FrameError, BadSignature.
    """
    envelope = parse_envelope(data, limit=limit)
    verify(kind, envelope, public)
    return envelope, decode(envelope.p, type_, limit=limit)
