"""Credentials of Azure targets: what the sealed secret holds, and how each kind authorises a request.

Tokens come from azure-identity.

| secret's keys | meaning |
|---|---|
| account_key | shared key of the storage account; the agent makes itself SAS of one hour for the one blob |
| sas | a ready SAS query; cannot be renewed here |
| tenant_id, client_id, client_secret | a service principal (Microsoft Entra) |
| tenant_id, client_id, certificate | the same by a certificate: PEM, its key included |
| managed_identity | of the Azure VM that the appliance runs on: a client id, or "system" |
| tenant_id, client_id, workload_identity | by the federated token in a file that the appliance's configuration names |
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent.secrets import Secret
from agent.targets.azure.entra import Principal, TokenSource
from agent.targets.errors import CredentialRefused

STORAGE_SCOPE = "https://storage.azure.com/.default"
SAS_LIFE_S = 3600
_EARLY_S = 600
"""Renew this long before the end: the longest request is half of it, and clocks differ."""
_BACK_S = 300
"""Start this long ago: the service's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A storage account's shared key."""

    key: Secret


@dataclass(frozen=True, slots=True)
class GivenSas:
    """A SAS that somebody else made."""

    query: Secret


Credential = AccountKey | GivenSas | Principal

_PROOFS = {
    "client_secret": "secret",
    "certificate": "certificate",
    "workload_identity": "workload",
}


def read_credential(secret: dict[str, Secret]) -> Credential:
    """Return the credential that an opened secret describes.

    Raises:
        CredentialRefused: Its keys are none of the sets; values are never shown.
    """
    keys = frozenset(secret)
    if keys == {"account_key"}:
        return AccountKey(secret["account_key"])
    if keys == {"sas"}:
        return GivenSas(Secret(secret["sas"].reveal().lstrip("?")))
    for name, kind in _PROOFS.items():
        if keys == {"tenant_id", "client_id", name}:
            tenant, client = secret["tenant_id"].reveal(), secret["client_id"].reveal()
            return Principal(kind, tenant, client, secret[name])
    if keys == {"managed_identity"}:
        client = secret["managed_identity"].reveal()
        return Principal("managed", "", "" if client == "system" else client)
    found = ", ".join(sorted(keys)) or "nothing"
    msg = (
        f"the target's credential holds {found}; expected account_key, sas, managed_identity, or tenant_id + client_id"
        " + one of client_secret, certificate, workload_identity"
    )
    raise CredentialRefused(msg)


@dataclass(slots=True)
class SasAuthorizer:
    """Authorises by a SAS query; `make` gives a new one, or raises if it cannot.

    Attributes:
        url: Blob URL without query.
        make: (how many were made before) -> (query, seconds that it is good for).
        clock: Monotonic seconds.
    """

    url: str
    make: Callable[[int], tuple[str, float]]
    clock: Callable[[], float]
    _query: str = field(default="", repr=False)
    _good_until: float = 0.0
    _made: int = 0

    async def request(self) -> tuple[str, dict[str, str]]:
        """Return the URL with a SAS that outlives the request."""
        if self.clock() >= self._good_until:
            self._query, life = self.make(self._made)
            self._made += 1
            self._good_until = self.clock() + life - _EARLY_S
        return f"{self.url}?{self._query}", {}

    async def refused(self, error: CredentialRefused) -> None:  # noqa: ARG002 - a new SAS is tried first
        """Make a new SAS for the next request."""
        self._good_until = 0.0


@dataclass(slots=True)
class FixedSas:
    """Authorises by a SAS that cannot be renewed."""

    url: str
    query: Secret

    async def request(self) -> tuple[str, dict[str, str]]:
        """Return the URL with the SAS."""
        return f"{self.url}?{self.query.reveal()}", {}

    async def refused(self, error: CredentialRefused) -> None:
        """There is no other."""
        raise error


@dataclass(slots=True)
class BearerAuthorizer:
    """Authorises by an access token of a service principal."""

    url: str
    tokens: TokenSource
    scope: str
    _tried: int = 0

    async def request(self) -> tuple[str, dict[str, str]]:
        """Return the URL and the Authorization header."""
        return self.url, {"Authorization": f"Bearer {await self.tokens.token(self.scope)}"}

    async def refused(self, error: CredentialRefused) -> None:
        """A token that the authority just issued is refused: nothing that we could renew."""
        raise error


def blob_sas(
    account: str, container: str, blob: str, key: Secret, *, number: int, now_ms: int
) -> tuple[str, float]:
    """Make a SAS of one hour for one blob by the official SDK.

    `number` seconds are added: two that are made within one second would be the same, and equally refused. `now_ms` is
    the time by signed time: the service judges by its own clock, and this machine's may be wrong.
    """
    from azure.storage.blob import BlobSasPermissions, generate_blob_sas  # noqa: PLC0415 - 0.5 s to import

    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    query: str = generate_blob_sas(
        account,
        container,
        blob,
        account_key=key.reveal(),
        permission=BlobSasPermissions(read=True, write=True, create=True, delete=True),
        start=now - timedelta(seconds=_BACK_S),
        expiry=now + timedelta(seconds=SAS_LIFE_S + number),
    )
    return query, float(SAS_LIFE_S)
