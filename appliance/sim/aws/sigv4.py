"""Verify AWS Signature Version 4 as the services do: key, scope, clock, signed headers, payload. Pure.

"Create a signed AWS API request" of the IAM user guide; written apart from the client that it judges.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from appliance.sim.call import Call, Refusal

SKEW_S = 300.0
UNSIGNED = "UNSIGNED-PAYLOAD"
_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/([0-9]{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request,\s*"
    r"SignedHeaders=([a-z0-9;-]+),\s*Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What an Authorization header says."""

    key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str


def scope_of(call: Call) -> Scope | None:
    """Return the parsed header; None without one that can be read."""
    found = _HEADER.fullmatch(call.header("Authorization"))
    if found is None:
        return None
    key, date, region, service, headers, signature = found.groups()
    return Scope(key, date, region, service, tuple(headers.split(";")), signature)


def verify(call: Call, scope: Scope, secret: str, body: bytes, *, now: float) -> None:
    """Check the signature.

    Raises:
        Refusal: SignatureDoesNotMatch, or RequestExpired for a clock that is more than 5 minutes off.
    """
    stamp = call.header("X-Amz-Date")
    try:
        sent = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise _refused(f"X-Amz-Date is {stamp!r}") from None
    if abs(now - sent) > SKEW_S:
        off = "Signature expired" if sent < now else "Signature not yet current"
        raise Refusal(403, "RequestExpired", f"{off}: {stamp} is not within 5 min of the server.")
    if scope.date != stamp[:8]:
        raise _refused(f"the scope is of {scope.date}, the request of {stamp}")
    needed = {"host", "x-amz-date"} | {
        name.lower() for name in call.headers if name.lower().startswith("x-amz-")
    }
    if missing := needed - set(scope.headers):
        raise _refused(f"not signed: {', '.join(sorted(missing))}")
    text = _string_to_sign(call, scope, stamp, _payload_hash(call, body))
    if not hmac.compare_digest(_sign(secret, scope, text), scope.signature):
        raise _refused("the canonical string was " + text.replace("\n", "|"))


def _payload_hash(call: Call, body: bytes) -> str:
    told = call.header("X-Amz-Content-SHA256")
    if told == UNSIGNED:
        return told
    found = hashlib.sha256(body).hexdigest()
    if told and told != found:
        raise Refusal(400, "XAmzContentSHA256Mismatch", "The body is not the one that was signed.")
    return found


def _string_to_sign(call: Call, scope: Scope, stamp: str, payload: str) -> str:
    path = call.path if scope.service == "s3" else quote(call.path, safe="/~")
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in call.query.items()
    )
    lines = [
        call.method,
        path or "/",
        "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{_folded(call.headers, name)}" for name in scope.headers),
        "",
        ";".join(scope.headers),
        payload,
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    where = f"{scope.date}/{scope.region}/{scope.service}/aws4_request"
    return f"AWS4-HMAC-SHA256\n{stamp}\n{where}\n{digest}"


def _folded(headers: Mapping[str, str], name: str) -> str:
    return " ".join(headers.get(name, "").split())


def _sign(secret: str, scope: Scope, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (scope.date, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _refused(why: str) -> Refusal:
    message = "The request signature we calculated does not match the signature you provided."
    return Refusal(403, "SignatureDoesNotMatch", message, detail=why)
