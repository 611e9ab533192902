"""Sealed secrets: HPKE to one appliance, one command and one field, so that no relay can read or move them. No I/O.

HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, info =
msgpack ["imageport/seal/v1", tenant, appliance, seal kid, command id, field path] (PROTOCOL 7).
"""

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocol.codec import encode
from protocol.errors import SealBroken, SealKeyUnknown
from protocol.ids import Bytes16, KeyId, key_id
from protocol.messages import Layout

_DOMAIN = "imageport/seal/v1"
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class Sealed(Layout, frozen=True, kw_only=True):
    """One sealed field: the seal key's id and HPKE's `enc + ciphertext`."""

    kid: Bytes16
    ct: Annotated[bytes, msgspec.Meta(min_length=48, max_length=64 * 1024)]


@dataclass(frozen=True, slots=True)
class SealKey:
    """An X25519 private key with its id. Never printed."""

    private: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SealKey":
        """Make a new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> "SealKey":
        """Load a key from its 32 raw private bytes."""
        return cls(X25519PrivateKey.from_private_bytes(raw))

    @property
    def raw(self) -> bytes:
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


@dataclass(frozen=True, slots=True)
class SealScope:
    """What one sealed field is bound to; any difference makes it unreadable.

    For a secret on its way from a caller to the signer: `appliance` is the caller's key id in hex and `command` the 16
    bytes of the request's own id.
    """

    tenant: str
    appliance: str
    command: bytes
    path: str

    def info(self, kid: bytes) -> bytes:
        """Return the HPKE info string."""
        return encode([_DOMAIN, self.tenant, self.appliance, kid, self.command, self.path])


def seal(clear: bytes, public: bytes, scope: SealScope) -> Sealed:
    """Seal `clear` to a raw public key within `scope`.

    Raises:
        SealBroken: The public key is none that anything can be sealed to.
    """
    kid = key_id(public)
    try:
        key = X25519PublicKey.from_public_bytes(public)
        return Sealed(kid=kid, ct=_SUITE.encrypt(clear, key, info=scope.info(kid)))
    except ValueError as err:
        msg = f"key {kid.hex()} cannot take a secret"
        raise SealBroken(msg, path=scope.path, kid=kid.hex()) from err


def unseal(sealed: Sealed, keys: "list[SealKey] | tuple[SealKey, ...]", scope: SealScope) -> bytes:
    """Open a sealed field with whichever of our keys it names.

    Raises:
        SealKeyUnknown: None of `keys` has that id.
        SealBroken: The scope differs or the bytes are damaged.
    """
    for key in keys:
        if key.kid == sealed.kid:
            try:
                return _SUITE.decrypt(sealed.ct, key.private, info=scope.info(sealed.kid))
            except (InvalidTag, ValueError) as err:
                msg = f"the secret {scope.path} was sealed for another command or appliance, or is damaged"
                raise SealBroken(msg, path=scope.path) from err
    msg = f"the secret {scope.path} is sealed to key {sealed.kid.hex()}, which is not held here"
    raise SealKeyUnknown(msg, path=scope.path, kid=sealed.kid.hex())
