"""API keys: who asks, for which tenant and with which role. Compares hashes, keeps no key."""

import hashlib
import hmac
from dataclasses import dataclass

from relay.config import ApiKey, Role
from relay.errors import Forbidden, Unauthorized

RANK: dict[Role, int] = {"control": 0, "reader": 1, "operator": 2, "admin": 3}
"""What a role may do, it may with every rank above; `control` may attach a signer and nothing else."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A known API key."""

    id: str
    tenant: str
    role: Role


@dataclass(frozen=True, slots=True)
class Keys:
    """The configured keys."""

    keys: tuple[ApiKey, ...]

    def caller(self, header: str | None, *, role: Role) -> Caller:
        """Return who an `Authorization` header names, if its role is enough.

        Raises:
            Unauthorized, Forbidden.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("the request carries no API key")
        found = self._find(token.strip())
        if RANK[found.role] < RANK[role]:
            raise Forbidden(f"API key {found.id} has the role {found.role}, this needs {role}")
        return found

    def control(self, token: str) -> Caller:
        """Return the signer that a token names.

        Raises:
            Unauthorized, Forbidden.
        """
        found = self._find(token)
        if found.role != "control":
            raise Forbidden(f"API key {found.id} has the role {found.role}, this needs control")
        return found

    def _find(self, token: str) -> Caller:
        """Compare with every key, so that the time taken tells nothing about which one nearly fitted."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise Unauthorized("the API key is not known to this relay")
        return Caller(found.id, found.tenant, found.role)
