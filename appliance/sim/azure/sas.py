"""Shared access signatures: verifies service and account SAS of the Blob service, and signs them for tests.

Written from the "Create a service SAS" and "Create an account SAS" documents. User delegation SAS is refused by name.
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlencode

from appliance.sim.azure.state import Policy
from appliance.sim.call import Call, Refusal

_SERVICE_FIELDS_HEAD = ("sp", "st", "se")
_CONTENT_FIELDS = ("rscc", "rscd", "rsce", "rscl", "rsct")
_TIME_FORMS = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S.%fZ")

SIGN_VERSION = "2021-12-02"
"""`sv` of the SAS that this simulator signs itself."""

RESOURCE_SNAPSHOT_SINCE = "2018-11-09"
ENCRYPTION_SCOPE_SINCE = "2020-12-06"
OLDEST_VERSION = "2015-04-05"


@dataclass(frozen=True, slots=True)
class Resource:
    """What a request is about; `kind` is service, container or blob."""

    kind: str
    container: str = ""
    blob: str = ""


def sign(key: str, text: str) -> str:
    """Return the base64 HMAC-SHA256 of a string to sign under a base64 key."""
    return b64encode(hmac.digest(b64decode(key), text.encode(errors="replace"), "sha256")).decode()


def same(first: str, second: str) -> bool:
    """Compare two secrets in constant time, whatever characters a client sent."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode(errors="replace"))


def refuse_authentication(detail: str) -> Refusal:
    """Make the 403 that the service gives to every bad signature, with the reason in its detail."""
    return Refusal(
        403,
        "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
        "correctly including the signature.",
        detail=detail,
    )


def parse_time(text: str, name: str) -> float:
    """Return the epoch seconds of a SAS time field."""
    for form in _TIME_FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise refuse_authentication(f"{name} is not a UTC time in ISO 8601: {text!r}")


def service_text(query: Mapping[str, str], canonical: str) -> str:
    """Build the string to sign of a service SAS for the resource `/blob/account/container[/blob]`."""
    version = query.get("sv", "")
    fields = [query.get(name, "") for name in _SERVICE_FIELDS_HEAD]
    fields += [canonical, query.get("si", ""), query.get("sip", ""), query.get("spr", ""), version]
    if version >= RESOURCE_SNAPSHOT_SINCE:
        fields += [query.get("sr", ""), query.get("snapshot", "")]
    if version >= ENCRYPTION_SCOPE_SINCE:
        fields.append(query.get("ses", ""))
    fields += [query.get(name, "") for name in _CONTENT_FIELDS]
    return "\n".join(fields)


def account_text(query: Mapping[str, str], account: str) -> str:
    """Build the string to sign of an account SAS."""
    names = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"]
    if query.get("sv", "") >= ENCRYPTION_SCOPE_SINCE:
        names.append("ses")
    return "\n".join([account, *(query.get(name, "") for name in names)]) + "\n"


class SasVerifier:
    """Checks the SAS of a request under one account's key.

    Args:
        account: Name in the signed text.
        key: Base64 account key.
        voided: Signatures that an injected fault declared expired; shared and changed by its owner.
    """

    def __init__(self, account: str, key: str, voided: set[str]) -> None:
        self._account = account
        self._key = key
        self._voided = voided
        self.known: set[str] = set()

    def verify(self, call: Call, resource: Resource, policies: Mapping[str, Policy]) -> str:
        """Return the permissions that the request's SAS grants on `resource`.

        Raises:
            Refusal: 403 AuthenticationFailed, with what is wrong in the detail.
        """
        query = call.query
        if "skoid" in query:
            raise refuse_authentication("User delegation SAS is not simulated; sign with the key.")
        if query.get("sv", "") < OLDEST_VERSION:
            raise refuse_authentication(f"sv is missing or older than {OLDEST_VERSION}.")
        is_account = "ss" in query or "srt" in query
        text = account_text(query, self._account) if is_account else self._service(query, resource)
        if not same(sign(self._key, text), query["sig"]):
            raise refuse_authentication(f"Signature did not match. String to sign used was {text}")
        self.known.add(query["sig"])
        if query["sig"] in self._voided:
            raise refuse_authentication(
                "Signature not valid in the specified time frame (injected)."
            )
        if is_account:
            _check_account_scope(query, resource)
        permissions, expires = _granted(query, policies)
        _check_window(query, call, expires)
        return permissions

    def _service(self, query: Mapping[str, str], resource: Resource) -> str:
        """Return the string to sign; the SAS may name the blob or its container."""
        kind = query.get("sr", "")
        container = f"/blob/{self._account}/{resource.container}"
        if kind == "c" and resource.container:
            return service_text(query, container)
        if kind == "b" and resource.kind == "blob":
            return service_text(query, f"{container}/{resource.blob}")
        raise refuse_authentication(f"sr={kind!r} does not cover a request to a {resource.kind}.")


def _check_account_scope(query: Mapping[str, str], resource: Resource) -> None:
    wanted = {"service": "s", "container": "c", "blob": "o"}[resource.kind]
    if "b" not in query.get("ss", ""):
        raise Refusal(
            403, "AuthorizationServiceMismatch", "The SAS does not cover the Blob service."
        )
    if wanted not in query.get("srt", ""):
        raise Refusal(
            403,
            "AuthorizationResourceTypeMismatch",
            "This request is not authorized to perform this operation using this resource type.",
        )


def _granted(query: Mapping[str, str], policies: Mapping[str, Policy]) -> tuple[str, float]:
    """Return (permissions, expiry) from the query or from the stored policy that `si` names."""
    name = query.get("si", "")
    if not name:
        if not query.get("se"):
            raise refuse_authentication("se is required when the SAS names no stored policy.")
        return query.get("sp", ""), parse_time(query["se"], "se")
    policy = policies.get(name)
    if policy is None:
        raise refuse_authentication(
            "The stored access policy that si names does not exist (revoked?)."
        )
    return policy.permissions, policy.expires


def _check_window(query: Mapping[str, str], call: Call, expires: float) -> None:
    start = query.get("st", "")
    if call.now >= expires or (start and call.now < parse_time(start, "st")):
        shown = datetime.fromtimestamp(expires, UTC).isoformat()
        raise refuse_authentication(
            f"Signature not valid in the specified time frame: Start [{start}] - Expiry [{shown}]"
        )
    protocol = query.get("spr", "")
    if protocol == "https" and call.scheme != "https":
        raise Refusal(
            403,
            "AuthorizationProtocolMismatch",
            "This request is not authorized to perform this operation using this protocol.",
        )
    allowed = query.get("sip", "")
    if allowed and not _address_allowed(allowed, call.client):
        raise Refusal(
            403,
            "AuthorizationSourceIPMismatch",
            "This request is not authorized to perform this operation using this source IP.",
        )


def _address_allowed(allowed: str, client: str) -> bool:
    first, _, last = allowed.partition("-")
    try:
        low, high, peer = (ip_address(text) for text in (first, last or first, client))
    except ValueError as err:
        raise refuse_authentication(f"sip is not an address or range: {err}") from err
    return low.version == high.version == peer.version and int(low) <= int(peer) <= int(high)


def service_sas(key: str, canonical: str, fields: Mapping[str, str]) -> str:
    """Return the query string of a service SAS over `canonical`; `fields` holds at least sr and sp/se or si."""
    query = {"sv": SIGN_VERSION, **fields}
    return urlencode({**query, "sig": sign(key, service_text(query, canonical))})
