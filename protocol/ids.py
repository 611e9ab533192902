"""Identifiers and small value types of the wire, with the pattern each must match. Values only."""

import hashlib
from typing import Annotated, NewType

import msgspec

IdText = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
"""Tenant, appliance, workflow and key ids: `[a-z0-9-]{1,64}` (PROTOCOL 2)."""

NameText = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9.-]{1,64}\Z")]
"""Ops, codes, output names and capabilities."""

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A SHA-256."""

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

U63 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Integer milliseconds UTC since 1970; below 2**53 so that JSON readers keep it whole."""

KeyId = NewType("KeyId", bytes)
"""First 16 bytes of SHA-256 over a raw public key: a look-up hint, never an authority."""


def key_id(public: bytes) -> KeyId:
    """Return the key id of a raw 32-byte public key."""
    return KeyId(hashlib.sha256(public).digest()[:16])


def digest_of(payload: bytes) -> bytes:
    """Return the digest that names a signed payload everywhere: SHA-256 over exactly its bytes."""
    return hashlib.sha256(payload).digest()
