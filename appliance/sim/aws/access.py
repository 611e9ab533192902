"""Access: who signed a request, and whether the account's policy lets them do what they ask.

The policy is an IAM document of which Effect and Action are looked at; Resource and Condition are not simulated.
Temporary credentials come from `assume` (STS, instance metadata) and end.
"""

import hashlib
import hmac
import secrets
from fnmatch import fnmatchcase
from typing import Any

from appliance.sim.aws.sigv4 import Scope, scope_of, verify
from appliance.sim.aws.state import Session, letters
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Call, Refusal

ROLE_ARN = "arn:aws:iam::{account}:role/imageport"
EXTERNAL_ID = "imageport-external"


class Access:
    """The account's keys, sessions and policy."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    @property
    def role_arn(self) -> str:
        """The one role that can be assumed."""
        return ROLE_ARN.format(account=self._vault.state.identity.account)

    def check(self, call: Call, body: bytes, service: str) -> None:
        """Verify who asks.

        Raises:
            Refusal: No or a wrong signature, another region or service, an unknown key, an ended session.
        """
        scope = scope_of(call)
        if scope is None:
            raise Refusal(403, "MissingAuthenticationToken", "The request holds no signature.")
        region = self._vault.state.identity.region
        if (scope.region, scope.service) != (region, service):
            message = f"Credential should be scoped to {region}/{service}, not {scope.region}/{scope.service}."
            raise Refusal(403, "SignatureDoesNotMatch", message)
        verify(call, scope, self._secret(call, scope), body, now=call.now)

    def _secret(self, call: Call, scope: Scope) -> str:
        identity = self._vault.state.identity
        if scope.key == identity.access_key:
            return identity.secret_key
        session = self._vault.state.sessions.get(scope.key)
        if session is None:
            raise Refusal(403, "InvalidClientTokenId", "The security token is invalid.")
        if not hmac.compare_digest(session.token, call.header("X-Amz-Security-Token")):
            raise Refusal(403, "InvalidClientTokenId", "The session token is another one's.")
        if call.now >= session.expires:
            raise Refusal(403, "ExpiredToken", "The security token included is expired.")
        return session.secret_key

    def allow(self, action: str) -> None:
        """Raise UnauthorizedOperation unless the policy allows an action ("ec2:RegisterImage")."""
        policy = self._vault.state.policy
        if policy is not None and not _allows(policy, action):
            raise Refusal(
                403, "UnauthorizedOperation", f"You are not authorized to perform: {action}."
            )

    def assume(self, role: str, seconds: float, now: float) -> tuple[str, Session]:
        """Make temporary credentials; return (access key, session)."""
        key = "ASIA" + letters(16)
        token = hashlib.sha256(f"{key}/{secrets.token_hex(16)}".encode()).hexdigest()
        session = Session(secrets.token_urlsafe(30)[:40], token, now + seconds, role)
        self._vault.state.sessions[key] = session
        self._vault.save()
        return key, session

    def expire(self, now: float) -> None:
        """End every session."""
        for session in self._vault.state.sessions.values():
            session.expires = min(session.expires, now)
        self._vault.save()


def _allows(policy: dict[str, Any], action: str) -> bool:
    allowed = False
    for statement in policy.get("Statement", []):
        actions = statement.get("Action", [])
        actions = [actions] if isinstance(actions, str) else actions
        if any(fnmatchcase(action.lower(), pattern.lower()) for pattern in actions):
            if statement.get("Effect") == "Deny":
                return False
            allowed = True
    return allowed
