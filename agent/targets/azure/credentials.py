"""Credentials of Azure targets: what the sealed secret holds, and how each kind authorises a request.

Tokens come from azure-identity.

| secret's keys | meaning |
|---|---|
| account_key | shared key of the storage account; the agent makes itself SAS of one hour for the one blob |
| sas | a ready SAS query; cannot be renewed here |
| tenant_id, client_id, client_secret | a service principal (Microsoft Entra) |
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.errors import AgentError
from agent.secrets import Secret
from agent.targets.errors import CredentialRefused, TargetUnavailable
from agent.targets.http.failures import TlsRefused
from agent.targets.http.settings import HttpSettings, proxy_with_auth

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
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


@dataclass(frozen=True, slots=True)
class Principal:
    """A service principal."""

    tenant_id: str
    client_id: str
    client_secret: Secret


Credential = AccountKey | GivenSas | Principal


def read_credential(secret: dict[str, Secret]) -> Credential:
    """Return the credential that an opened secret describes.

    Raises:
        CredentialRefused: Its keys are none of the three sets; values are never shown.
    """
    keys = frozenset(secret)
    if keys == {"account_key"}:
        return AccountKey(secret["account_key"])
    if keys == {"sas"}:
        return GivenSas(Secret(secret["sas"].reveal().lstrip("?")))
    if keys == {"tenant_id", "client_id", "client_secret"}:
        tenant, client = secret["tenant_id"].reveal(), secret["client_id"].reveal()
        return Principal(tenant, client, secret["client_secret"])
    found = ", ".join(sorted(keys)) or "nothing"
    msg = f"the target's credential holds {found}; expected account_key, sas, or tenant_id + client_id + client_secret"
    raise CredentialRefused(msg)


class TokenSource:
    """Bearer tokens of one service principal; azure-identity caches and renews them."""

    def __init__(self, principal: Principal, settings: HttpSettings, authority: str | None) -> None:
        self._principal = principal
        self._settings = settings
        self._authority = authority or PUBLIC_AUTHORITY
        self._credential: Any = None

    async def token(self, scope: str) -> str:
        """Return a valid access token.

        Raises:
            CredentialRefused: The principal is not accepted.
            TargetUnavailable: The authority did not answer.
        """
        from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError  # noqa: PLC0415 - 0.4 s to import

        try:
            token = await self._made().get_token(scope)
        except ClientAuthenticationError as err:
            msg = f"{self._authority} does not accept client {self._principal.client_id}: {_first_line(err)}"
            raise CredentialRefused(msg) from err
        except ServiceRequestError as err:
            raise self._unreachable(err) from err
        text: str = token.token
        return text

    async def close(self) -> None:
        """Close the SDK's session."""
        if self._credential is not None:
            await self._credential.close()

    def _made(self) -> Any:
        if self._credential is None:
            from azure.identity.aio import ClientSecretCredential  # noqa: PLC0415 - 0.4 s to import

            options: dict[str, Any] = {}
            if self._settings.ca_file:
                options["connection_verify"] = self._settings.ca_file
            proxy = proxy_with_auth(self._settings)
            if proxy:
                options["proxies"] = {"https": proxy, "http": proxy}
            self._credential = ClientSecretCredential(
                self._principal.tenant_id,
                self._principal.client_id,
                self._principal.client_secret.reveal(),
                authority=self._authority,
                disable_instance_discovery=self._authority != PUBLIC_AUTHORITY,
                **options,
            )
        return self._credential

    def _unreachable(self, err: Exception) -> AgentError:
        msg = f"{self._authority}: {_first_line(err)}"
        return (
            TlsRefused(msg) if "CERTIFICATE_VERIFY_FAILED" in str(err) else TargetUnavailable(msg)
        )


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


def _first_line(err: Exception) -> str:
    return str(err).split("\n", maxsplit=1)[0][:500]
