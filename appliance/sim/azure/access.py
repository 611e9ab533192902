"""Who may do what in the storage account: Shared Key, SAS or bearer, against the permission an operation needs."""

from appliance.sim.azure import sharedkey
from appliance.sim.azure.sas import Resource, SasVerifier, refuse_authentication
from appliance.sim.azure.state import Identity
from appliance.sim.azure.tokens import STORAGE, TokenPlane
from appliance.sim.call import Call, Refusal


def permission_mismatch() -> Refusal:
    """Make the 403 of a SAS that is right but grants too little."""
    return Refusal(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )


class AccountAccess:
    """Authorizes requests to one storage account."""

    def __init__(self, identity: Identity, verifier: SasVerifier, tokens: TokenPlane) -> None:
        self._identity = identity
        self._verifier = verifier
        self._tokens = tokens

    def require(self, call: Call, resource: Resource, any_of: str) -> None:
        """Let the request pass when its credential grants one of the permissions `any_of`.

        Raises:
            Refusal: 401 without a credential, 403 with a wrong or too small one.
        """
        scheme = call.header("Authorization").partition(" ")[0]
        if scheme == "Bearer":
            self._tokens.check(call, STORAGE)
        elif scheme:
            sharedkey.verify(call, self._identity.account, self._identity.key)
        elif "sig" in call.query:
            self._require_sas(call, resource, any_of)
        else:
            raise Refusal(
                401,
                "NoAuthenticationInformation",
                "Server failed to authenticate the request. Please refer to the information in the "
                "www-authenticate header.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _require_sas(self, call: Call, resource: Resource, any_of: str) -> None:
        granted = self._verifier.verify(call, resource, {})
        if "srt" not in call.query and resource.kind != "blob" and any_of != "l":
            raise refuse_authentication(f"A service SAS does not allow this on a {resource.kind}.")
        if not set(any_of) & set(granted):
            raise permission_mismatch()
