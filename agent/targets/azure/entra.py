"""Tokens of Microsoft Entra, by azure-identity, which caches and renews them: secrets, certificates, identities."""

from dataclasses import dataclass
from typing import Any

from agent.errors import AgentError
from agent.secrets import Secret
from agent.targets.azure.clouds import CLOUDS
from agent.targets.errors import CredentialRefused, TargetUnavailable
from agent.targets.http.failures import TlsRefused
from agent.targets.http.settings import HttpSettings, proxy_with_auth

_PUBLIC = {cloud.authority for cloud in CLOUDS.values()}


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity of Microsoft Entra; `kind` says which of its parts there are.

    Attributes:
        kind: secret | certificate | managed | workload.
        tenant_id / client_id: Whose; client "" is a machine's own identity.
        proof: The secret or the certificate; None for the others.
    """

    kind: str
    tenant_id: str
    client_id: str
    proof: Secret | None = None


class TokenSource:
    """Bearer tokens of one principal."""

    def __init__(
        self,
        principal: Principal,
        settings: HttpSettings,
        authority: str,
        *,
        token_file: str | None = None,
    ) -> None:
        """Ask nobody yet.

        Args:
            principal: Whose tokens.
            settings: Proxy and trust.
            authority: Where tokens come from.
            token_file: The federated token of workload identity, on this appliance.
        """
        self._principal = principal
        self._settings = settings
        self._authority = authority
        self._token_file = token_file
        self._credential: Any = None

    async def token(self, scope: str) -> str:
        """Return a valid access token.

        Raises:
            CredentialRefused: The principal is not accepted, or there is no such identity here.
            TargetUnavailable: The authority did not answer.
        """
        from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError  # noqa: PLC0415 - 0.4 s to import
        from azure.identity import CredentialUnavailableError  # noqa: PLC0415

        who = self._principal.client_id or "the machine's own identity"
        try:
            token = await self._made().get_token(scope)
        except CredentialUnavailableError as err:
            msg = f"no {self._principal.kind} identity is to be had on this appliance: {_first_line(err)}"
            raise CredentialRefused(msg) from err
        except ClientAuthenticationError as err:
            msg = f"{self._authority} does not accept client {who}: {_first_line(err)}"
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
            self._credential = self._make()
        return self._credential

    def _make(self) -> Any:
        from azure.identity import aio  # noqa: PLC0415 - 0.4 s to import

        who, options = self._principal, self._options()
        if who.kind == "managed":
            return aio.ManagedIdentityCredential(client_id=who.client_id or None)
        if who.kind == "workload":
            if self._token_file is None:
                raise CredentialRefused("[uploads] azure_token_file of the appliance is not set")
            return aio.WorkloadIdentityCredential(
                tenant_id=who.tenant_id,
                client_id=who.client_id,
                token_file_path=self._token_file,
                **options,
            )
        proof = who.proof.reveal() if who.proof is not None else ""
        if who.kind == "secret":
            return aio.ClientSecretCredential(who.tenant_id, who.client_id, proof, **options)
        try:
            return aio.CertificateCredential(
                who.tenant_id, who.client_id, certificate_data=proof.encode(), **options
            )
        except ValueError as err:
            raise CredentialRefused(
                "the certificate is no PEM with its private key inside"
            ) from err

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "authority": self._authority,
            "disable_instance_discovery": self._authority not in _PUBLIC,
        }
        if self._settings.ca_file:
            options["connection_verify"] = self._settings.ca_file
        proxy = proxy_with_auth(self._settings)
        if proxy:
            options["proxies"] = {"https": proxy, "http": proxy}
        return options

    def _unreachable(self, err: Exception) -> AgentError:
        msg = f"{self._authority}: {_first_line(err)}"
        return (
            TlsRefused(msg) if "CERTIFICATE_VERIFY_FAILED" in str(err) else TargetUnavailable(msg)
        )


def _first_line(err: Exception) -> str:
    return str(err).split("\n", maxsplit=1)[0][:500]
