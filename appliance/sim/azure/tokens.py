"""Bearer tokens: the fake Microsoft Entra token endpoint (client credentials only) and the check of its tokens.

azure-identity drives it over TLS (`authority="https://..."`, instance discovery off); it refuses plain HTTP itself.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from appliance.sim.azure.sas import same
from appliance.sim.azure.state import Identity
from appliance.sim.call import Call, Refusal, Reply

MANAGEMENT = "https://management.azure.com"
DISK = "https://disk.azure.com"
"""Audience of the tokens that direct upload takes beside a SAS."""
STORAGE = "https://storage.azure.com"
_MANAGEMENT_ALIASES = (MANAGEMENT, "https://management.core.windows.net")

LIFETIME = 3600


class TokenPlane:
    """`/{tenant}/oauth2/v2.0/token` and the discovery document that MSAL reads before it."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.base_url = ""
        self.certificate_keys: list[rsa.RSAPublicKey] = []

    def operation(self, call: Call) -> str:
        """Name the operation."""
        return "token.issue" if call.method == "POST" else "token.discover"

    async def answer(self, call: Call) -> Reply:
        """Issue a token or describe the endpoints."""
        tenant = call.path.split("/")[1]
        if tenant != self._identity.tenant:
            raise Refusal(400, "invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
        if call.path.endswith("/.well-known/openid-configuration"):
            return _json(200, self._discovery())
        if call.method != "POST" or not call.path.endswith("/oauth2/v2.0/token"):
            raise Refusal(404, "invalid_request", "AADSTS90019: No such endpoint in the simulator.")
        form = {
            name: values[0]
            for name, values in parse_qs(
                b"".join(await call.body.read()).decode(errors="replace")
            ).items()
        }
        return _json(200, self._grant(form, call.now))

    def _discovery(self) -> dict[str, str]:
        tenant_url = f"{self.base_url}/{self._identity.tenant}"
        return {
            "token_endpoint": f"{tenant_url}/oauth2/v2.0/token",
            "authorization_endpoint": f"{tenant_url}/oauth2/v2.0/authorize",
            "issuer": f"{tenant_url}/v2.0",
        }

    def _grant(self, form: dict[str, str], now: float) -> dict[str, Any]:
        if form.get("grant_type") != "client_credentials":
            raise Refusal(
                400, "unsupported_grant_type", "AADSTS70003: Only client_credentials is simulated."
            )
        known = same(form.get("client_id", ""), self._identity.client_id)
        if not known:
            raise Refusal(
                400, "unauthorized_client", "AADSTS700016: Application not found in the directory."
            )
        if "client_assertion" in form and self.certificate_keys:
            self._check_assertion(form["client_assertion"], now)
        elif not same(form.get("client_secret", ""), self._identity.client_secret):
            raise Refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        audience = self.audience(form.get("scope", ""))
        token = self.issue(audience, now=now, lifetime=LIFETIME)
        return {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": token}

    def _check_assertion(self, assertion: str, now: float) -> None:
        """Check a JWT that a certificate signed (RFC 7523): by the key that was trusted, for this client, of now."""
        try:
            head, payload, signature = assertion.split(".")
            claims = msgspec.json.decode(_unb64(payload))
            ps = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            pad = ps if msgspec.json.decode(_unb64(head))["alg"] == "PS256" else padding.PKCS1v15()
            for key in self.certificate_keys:
                key.verify(_unb64(signature), f"{head}.{payload}".encode(), pad, hashes.SHA256())
        except (ValueError, KeyError, InvalidSignature, msgspec.DecodeError) as err:
            message = f"AADSTS700027: The certificate's signature cannot be verified: {err}."
            raise Refusal(401, "invalid_client", message) from err
        if claims.get("sub") != self._identity.client_id or now >= claims.get("exp", 0):
            raise Refusal(401, "invalid_client", "AADSTS700024: The assertion is not valid now.")

    def audience(self, scope: str) -> str:
        """Return the audience of a `resource/.default` scope."""
        for word in scope.split():
            resource = word.removesuffix("/.default").rstrip("/")
            if resource in (*_MANAGEMENT_ALIASES, self.base_url):
                return MANAGEMENT
            if resource == DISK:
                return DISK
            if resource == STORAGE or resource == f"{self.base_url}/{self._identity.account}":
                return STORAGE
        raise Refusal(
            400, "invalid_resource", f"AADSTS500011: The resource of scope {scope!r} was not found."
        )

    def issue(self, audience: str, *, now: float, lifetime: float) -> str:
        """Sign a token for one audience."""
        claims = {"aud": audience, "tid": self._identity.tenant, "exp": now + lifetime, "nbf": now}
        body = _b64(b'{"alg":"HS256","typ":"JWT"}') + "." + _b64(msgspec.json.encode(claims))
        return f"{body}.{self._sign(body)}"

    def _sign(self, body: str) -> str:
        return _b64(
            hmac.digest(self._identity.token_secret.encode(), body.encode(errors="replace"), sha256)
        )

    def check(self, call: Call, audience: str) -> None:
        """Check the request's bearer token.

        Raises:
            Refusal: 401 with the service's code for missing, foreign, expired or wrong-audience tokens.
        """
        scheme, _, token = call.header("Authorization").partition(" ")
        if scheme != "Bearer" or not token:
            raise _unauthorized(
                "AuthenticationFailed", "The 'Authorization' header is not present or is no bearer."
            )
        body, _, signature = token.rpartition(".")
        if not same(self._sign(body), signature):
            raise _unauthorized(
                "InvalidAuthenticationToken", "The access token is invalid: signature."
            )
        claims = msgspec.json.decode(urlsafe_b64decode(body.split(".")[1] + "=="))
        if claims["aud"] != audience:
            raise _unauthorized(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. "
                f"It should exactly match '{audience}'.",
            )
        if call.now >= claims["exp"]:
            raise _unauthorized(
                "ExpiredAuthenticationToken", "The access token expiry is earlier than now."
            )

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into OAuth's form."""
        body = {"error": refusal.code, "error_description": refusal.message, "error_codes": []}
        return _json(refusal.status, body)


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(
        401,
        code,
        message,
        headers={"WWW-Authenticate": f'Bearer error="invalid_token", code="{code}"'},
    )


def _unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(status: int, body: object) -> Reply:
    return Reply(
        status, {"Content-Type": "application/json; charset=utf-8"}, msgspec.json.encode(body)
    )
