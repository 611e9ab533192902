"""The key manifest and what it allows: which key may sign what, for whom and when. Pure; keeps the highest serial.

A key signs its role's kinds only and for the tenants it lists. Validity is judged at the header that it signed
(nbf <= iat and exp of the command <= exp of the key), never at the moment of arrival (PROTOCOL 2, 3).
"""

from dataclasses import dataclass

from protocol.codec import decode
from protocol.errors import (
    BadField,
    KeyNotValid,
    KeyRevoked,
    ManifestRollback,
    UnknownKey,
    WrongKeyTenant,
    WrongRole,
)
from protocol.ids import key_id
from protocol.messages import (
    MAX_MANIFEST,
    MAX_STATEMENT,
    Kind,
    Manifest,
    ManifestKey,
    Record,
    Role,
)
from protocol.signed import Envelope, parse_envelope, verify

ROLE_OF_KIND: dict[Kind, Role] = {
    Kind.MANIFEST: Role.ROOT,
    Kind.COMMAND: Role.COMMAND,
    Kind.EPOCH: Role.COMMAND,
    Kind.RECEIPT: Role.COMMAND,
    Kind.TIME: Role.TIME,
    Kind.RECORD: Role.RECORD,
    Kind.RELEASE: Role.RELEASE,
    Kind.HELLO: Role.DEVICE,
    Kind.ACK: Role.DEVICE,
    Kind.NACK: Role.DEVICE,
    Kind.INVENTORY: Role.DEVICE,
    Kind.RESULT: Role.DEVICE,
    Kind.EVENT: Role.DEVICE,
}

EVERY_TENANT = "*"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one control plane as one verified manifest gives them.

    Attributes:
        root: Raw public root key, pinned at enrolment.
        manifest: The verified manifest.
        raw: The manifest's envelope, byte for byte, to hand on and to compare.
    """

    root: bytes
    manifest: Manifest
    raw: bytes

    @classmethod
    def open(cls, data: bytes, *, root: bytes, trusted: "KeyRing | None" = None) -> "KeyRing":
        """Verify a manifest against the pinned root and against the one already trusted.

        Raises:
            FrameError, BadSignature, ManifestRollback; BadField for two keys of one id.
        """
        envelope = parse_envelope(data, limit=MAX_MANIFEST)
        verify(Kind.MANIFEST, envelope, root)
        manifest = decode(envelope.p, Manifest, limit=MAX_MANIFEST)
        _check_keys(manifest)
        if trusted is not None:
            _check_newer(manifest, trusted)
        return cls(root, manifest, data)

    def key(self, envelope: Envelope, kind: Kind, *, tenant: str | None = None) -> ManifestKey:
        """Return the key that verified this envelope as `kind`; role, tenant and signature are checked.

        Revocation and validity are the caller's next questions (`check_dates`, `check_not_revoked`), because a
        revoked key's earlier orders may have to be named in an answer.

        Raises:
            UnknownKey, WrongRole, WrongKeyTenant, BadSignature.
        """
        key = self._find(envelope.k)
        role = ROLE_OF_KIND[kind]
        if key.role != role.value:
            msg = f"key {key.id} has the role {key.role}; a {kind.value} needs {role.value}"
            raise WrongRole(msg, key=key.id)
        verify(kind, envelope, key.pub)
        if tenant is not None:
            self.check_tenant(key, tenant)
        return key

    def check_tenant(self, key: ManifestKey, tenant: str) -> None:
        """Raise WrongKeyTenant unless the key may sign for this tenant."""
        if EVERY_TENANT not in key.tenants and tenant not in key.tenants:
            msg = f"key {key.id} may not sign for tenant {tenant}"
            raise WrongKeyTenant(msg, key=key.id, tenant=tenant)

    def check_dates(self, key: ManifestKey, *, issued: int, expires: int) -> None:
        """Raise KeyNotValid unless [issued, expires] lies inside the key's validity."""
        if not key.nbf <= issued <= expires <= key.exp:
            msg = f"signed for {issued}..{expires}, key {key.id} is valid {key.nbf}..{key.exp} (ms UTC)"
            raise KeyNotValid(msg, key=key.id)

    def check_not_revoked(self, key: ManifestKey) -> None:
        """Raise KeyRevoked if the manifest revokes the key."""
        if key.revoked is not None:
            msg = f"key {key.id} was revoked (since {key.revoked.since} ms UTC)"
            raise KeyRevoked(msg, key=key.id)

    def open_record(self, data: bytes) -> Record:
        """Verify an appliance's record with the manifest's record key and decode it."""
        envelope = parse_envelope(data, limit=MAX_STATEMENT)
        key = self.key(envelope, Kind.RECORD)
        self.check_not_revoked(key)
        record = decode(envelope.p, Record, limit=MAX_STATEMENT)
        self.check_tenant(key, record.tenant)
        return record

    def _find(self, kid: bytes) -> ManifestKey:
        for key in self.manifest.keys:
            if key_id(key.pub) == kid:
                return key
        msg = f"key {kid.hex()} is not in key manifest {self.manifest.serial}"
        raise UnknownKey(msg, kid=kid.hex(), serial=self.manifest.serial)


def _check_keys(manifest: Manifest) -> None:
    ids = [key.id for key in manifest.keys]
    pubs = [key.pub for key in manifest.keys]
    if len(set(ids)) != len(ids) or len(set(pubs)) != len(pubs):
        msg = f"key manifest {manifest.serial} lists a key twice; one key has one role"
        raise BadField(msg, serial=manifest.serial)


def _check_newer(manifest: Manifest, trusted: KeyRing) -> None:
    have = trusted.manifest.serial
    other = manifest != trusted.manifest
    if manifest.serial < have or (manifest.serial == have and other):
        msg = f"key manifest {manifest.serial} offered, {have} is trusted"
        raise ManifestRollback(msg, offered=manifest.serial, trusted=have)
