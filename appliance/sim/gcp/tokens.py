"""Tokens of the Google Cloud simulator: issued for a signed JWT (RFC 7523) or by the metadata server; checked.

A token says until when it is good and is signed by the simulator, so nothing has to be kept. Permissions are those of
the state's `granted`, for everybody.
"""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.gcp.state import State

TOKEN_PATH = "/token"  # noqa: S105 - a path
METADATA = "/computeMetadata/"
LIFE_S = 3600
_SKEW_S = 300
_AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth writes, whatever the endpoint."""
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_PREFIX = "ya29.sim."


class Tokens:
    """Issues and checks access tokens."""

    def __init__(self, state: State, *, life_s: float) -> None:
        self._state = state
        self._life_s = life_s
        self.url = ""

    def issue(self, now: float) -> dict[str, Any]:
        """Return a token as the token endpoint answers it."""
        until = f"{now:.6f}/{now + self._life_s:.6f}"
        token = _PREFIX + base64.urlsafe_b64encode(until.encode()).decode() + "." + self._mac(until)
        return {"access_token": token, "expires_in": int(self._life_s), "token_type": "Bearer"}

    def check(self, call: Call) -> None:
        """Raise 401 unless the request holds a token that is still good."""
        kind, _, token = call.header("Authorization").partition(" ")
        if kind.lower() != "bearer" or not token.startswith(_PREFIX):
            raise Refusal(401, "AuthenticationRequired", "Anonymous caller: no bearer token.")
        text, _, mac = token.removeprefix(_PREFIX).partition(".")
        try:
            until = base64.urlsafe_b64decode(text).decode()
        except ValueError:
            until = ""
        if not hmac.compare_digest(self._mac(until), mac):
            raise Refusal(401, "AuthenticationRequired", "Invalid Credentials")
        issued, _, ends = until.partition("/")
        if call.now >= float(ends) or float(issued) < self._state.voided_before:
            raise Refusal(401, "AuthenticationRequired", "Invalid Credentials: the token expired.")

    def allow(self, permission: str, where: str) -> None:
        """Raise 403 unless the caller has a permission."""
        granted = self._state.granted
        if granted is not None and permission not in granted:
            email = self._state.identity.email
            message = f"{email} does not have {permission} access to {where}."
            raise Refusal(403, "AccessDenied", message)

    def granted(self, permissions: list[str]) -> list[str]:
        """Return those of the permissions that the caller has."""
        mine = self._state.granted
        return [one for one in permissions if mine is None or one in mine]

    def _mac(self, text: str) -> str:
        key = self._state.identity.token_secret.encode()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class TokenPlane:
    """The token endpoint and the metadata server."""

    def __init__(self, state: State, tokens: Tokens) -> None:
        self._state = state
        self._tokens = tokens

    def operation(self, _call: Call) -> str:
        """Name the operation."""
        return "oauth.token"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        body = b"".join(await call.body.read())
        if call.path.startswith(METADATA):
            return self._metadata(call)
        if call.method != "POST":
            raise Refusal(405, "invalid_request", "POST")
        form = parse_qs(body.decode(errors="replace"))
        if form.get("grant_type") != [_GRANT]:
            raise Refusal(400, "unsupported_grant_type", f"{form.get('grant_type')}")
        self._check_assertion(form.get("assertion", [""])[0], call.now)
        return _json(200, self._tokens.issue(call.now))

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON (RFC 6749 5.2)."""
        body = {"error": refusal.code, "error_description": refusal.message}
        return _json(refusal.status, body, refusal.headers)

    def _metadata(self, call: Call) -> Reply:
        flavor = {"Metadata-Flavor": "Google"}
        if call.header("Metadata-Flavor") != "Google":
            raise Refusal(403, "Forbidden", "Missing Metadata-Flavor:Google header.")
        account = "/computeMetadata/v1/instance/service-accounts/"
        if call.path.startswith(account) and call.path.endswith("/token"):
            return _json(200, self._tokens.issue(call.now), flavor)
        if call.path.startswith(account):
            body = {"email": self._state.identity.email, "scopes": [], "aliases": ["default"]}
            return _json(200, body, flavor)
        if call.path.endswith("/project/project-id"):
            text = self._state.identity.project.encode()
            return Reply(200, {"Content-Type": "application/text", **flavor}, text)
        return _json(200, {}, flavor)

    def _check_assertion(self, assertion: str, now: float) -> None:
        """Check a JWT: RS256 by the account's key, for this endpoint, of now."""
        try:
            head, payload, signature = assertion.split(".")
            key = serialization.load_pem_private_key(
                self._state.identity.private_key.encode(), password=None
            )
            assert isinstance(key, rsa.RSAPrivateKey)
            key.public_key().verify(
                _decoded(signature),
                f"{head}.{payload}".encode(),
                padding.PKCS1v15(),
                hashes.SHA256(),
            )
            claims = json.loads(_decoded(payload))
        except (ValueError, InvalidSignature) as err:
            raise Refusal(400, "invalid_grant", "Invalid JWT Signature.") from err
        rules = (
            (claims.get("iss") == self._state.identity.email, "account not found"),
            (
                claims.get("aud") in (self._tokens.url, _AUDIENCE),
                f"Invalid JWT audience {claims.get('aud')}",
            ),
            (bool(claims.get("scope")), "no scope"),
            (claims.get("iat", 0) <= now + _SKEW_S, "Invalid JWT: iat is in the future"),
            (
                now - _SKEW_S < claims.get("exp", 0),
                "Invalid JWT: Token must be a short-lived token",
            ),
            (claims.get("exp", 0) <= claims.get("iat", 0) + 3600, "Invalid JWT: exp is too late"),
        )
        for holds, why in rules:
            if not holds:
                raise Refusal(400, "invalid_grant", why)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    told = {"Content-Type": "application/json", **(headers or {})}
    return Reply(status, told, msgspec.json.encode(body))
