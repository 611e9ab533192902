"""Access tokens of Google Cloud: what the sealed secret holds, and how each kind becomes a token. By google-auth.

| secret's keys | meaning |
|---|---|
| service_account_key | the JSON key file of a service account |
| appliance_credential | a name in the appliance's `[uploads.gcp_credentials]`: a key file, or a workload identity
  federation configuration, which may read files and call URLs and so never comes with a command |
| instance ("true") | the service account of the VM that the appliance runs on |
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.secrets import Secret
from agent.targets.errors import CredentialRefused, EndpointForbidden
from agent.targets.gcp.failures import sdk_failure
from agent.targets.http.settings import HttpSettings, proxy_with_auth

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_EARLY_S = 300.0
_ASSERTION_S = 3600
_SETS = (
    frozenset({"service_account_key"}),
    frozenset({"appliance_credential"}),
    frozenset({"instance"}),
)
_KEY_FIELDS = ("client_email", "private_key", "token_uri")


def check_secret(secret: dict[str, Secret]) -> None:
    """Raise CredentialRefused unless the keys are one of the sets; values are never shown."""
    if frozenset(secret) not in _SETS:
        found = ", ".join(sorted(secret)) or "nothing"
        msg = f"the target's credential holds {found}; expected service_account_key, appliance_credential or instance"
        raise CredentialRefused(msg)


@dataclass(slots=True)
class TokenSource:
    """Tokens of one job, renewed in time; thread-safe, blocking.

    Attributes:
        secret: One of the sets above.
        http: Proxy and trust.
        files: The appliance's own credential files by name.
        allowed: Whether the site lets a credential be sent to a URL.
        now_ms: Signed time: an assertion with another time is refused.
        clock: Monotonic seconds.
    """

    secret: dict[str, Secret] = field(repr=False)
    http: HttpSettings
    files: dict[str, str]
    allowed: Callable[[str], bool]
    now_ms: Callable[[], int]
    clock: Callable[[], float]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _credentials: Any = None
    _token: str = field(default="", repr=False)
    _good_until: float = 0.0

    def token(self) -> str:
        """Return an access token that outlives a request.

        Raises:
            CredentialRefused: It is none, or is not accepted. TargetUnavailable: nobody answered.
        """
        with self._lock:
            if self.clock() >= self._good_until:
                self._renew()
            return self._token

    def refused(self, token: str) -> None:
        """Forget a token that a service refused."""
        with self._lock:
            if token == self._token:
                self._good_until = 0.0

    def http_session(self) -> Any:
        """Return a requests session that goes the site's way."""
        import requests  # noqa: PLC0415 - comes with google-auth

        session = requests.Session()
        session.trust_env = False
        session.verify = self.http.ca_file or True
        proxy = proxy_with_auth(self.http)
        if proxy:
            session.proxies = {"http": proxy, "https": proxy}
        return session

    def _renew(self) -> None:
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - 0.2 s to import
        from google.auth.transport.requests import Request  # noqa: PLC0415

        what = "get a Google access token"
        try:
            credentials = self._made()
            if hasattr(
                credentials, "with_claims"
            ):  # a service account's: signed by the time outside
                now = self.now_ms() // 1000
                credentials = credentials.with_claims({"iat": now, "exp": now + _ASSERTION_S})
            with self.http_session() as session:
                credentials.refresh(Request(session=session))
        except GoogleAuthError as err:
            raise sdk_failure(err, what=what) from err
        self._token = str(credentials.token)
        self._good_until = self.clock() + max(0.0, _life_of(credentials) - _EARLY_S)

    def _made(self) -> Any:
        if self._credentials is None:
            self._credentials = self._make()
        return self._credentials

    def _make(self) -> Any:
        from google.auth import compute_engine  # noqa: PLC0415 - 0.2 s to import

        if "instance" in self.secret:
            return compute_engine.Credentials()
        if "appliance_credential" in self.secret:
            name = self.secret["appliance_credential"].reveal()
            if name not in self.files:
                msg = f"the appliance has no [uploads.gcp_credentials] {name}"
                raise CredentialRefused(msg)
            return _from_file(Path(self.files[name]))
        info = _key_of(self.secret["service_account_key"])
        if not self.allowed(info["token_uri"]):
            msg = f"[policy] endpoints do not allow the key's token_uri on {urlsplit(info['token_uri']).hostname}"
            raise EndpointForbidden(msg)
        return _service_account(info)


def _service_account(info: dict[str, Any]) -> Any:
    from google.oauth2 import service_account  # noqa: PLC0415 - 0.2 s to import

    try:
        return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
    except ValueError as err:
        raise CredentialRefused(
            "service_account_key holds a private key that cannot be read"
        ) from err


def _from_file(path: Path) -> Any:
    """Return the credential of one of the appliance's own files, by the kinds that are known here."""
    from google.auth import aws, identity_pool  # noqa: PLC0415 - 0.2 s to import

    try:
        info = json.loads(path.read_text())
        kind = info["type"]
        source = info.get("credential_source", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        msg = f"{path} is no Google credential: {err}"
        raise CredentialRefused(msg) from err
    if kind == "service_account":
        return _service_account(info)
    if kind == "external_account" and "executable" not in source:
        maker = aws if "environment_id" in source else identity_pool
        try:
            return maker.Credentials.from_info(info, scopes=[SCOPE])
        except ValueError as err:
            msg = f"{path}: {err}"
            raise CredentialRefused(msg) from err
    msg = f"{path} is of type {kind}; expected service_account, or external_account without an executable"
    raise CredentialRefused(msg)


def _key_of(secret: Secret) -> dict[str, str]:
    try:
        info = json.loads(secret.reveal())
    except ValueError:
        info = None
    if not isinstance(info, dict) or any(not isinstance(info.get(k), str) for k in _KEY_FIELDS):
        msg = f"service_account_key is no key file: expected JSON with {', '.join(_KEY_FIELDS)}"
        raise CredentialRefused(msg) from None
    return info


def _life_of(credentials: Any) -> float:
    """Return the seconds that a token just got is good for: google-auth adds them to this machine's clock."""
    from google.auth import _helpers  # noqa: PLC0415 - the clock that it used

    if credentials.expiry is None:
        return 3600.0
    return float((credentials.expiry - _helpers.utcnow()).total_seconds())
