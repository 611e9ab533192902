"""Shared Key authorization of the Blob service: verifies the Authorization header of a request.

Written from "Authorize with Shared Key" (2009-09-19 and later form). SharedKeyLite is refused by name.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from appliance.sim.azure.sas import refuse_authentication, same, sign
from appliance.sim.call import Call

CLOCK_SKEW = 15 * 60.0
"""Seconds; older or newer requests are refused as replays."""

_SIGNED_HEADERS = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


def canonical_headers(headers: Mapping[str, str]) -> str:
    """Return the x-ms- headers, sorted, one a line."""
    found = {
        name.lower(): value for name, value in headers.items() if name.lower().startswith("x-ms-")
    }
    return "".join(f"{name}:{' '.join(found[name].split())}\n" for name in sorted(found))


def canonical_resource(account: str, path: str, query: Mapping[str, str]) -> str:
    """Return `/account/path` and the query's names and values, sorted, one a line."""
    lines = [f"\n{name.lower()}:{query[name]}" for name in sorted(query, key=str.lower)]
    return f"/{account}{path}" + "".join(lines)


def string_to_sign(call: Call, account: str) -> str:
    """Build the text that a Shared Key signature is over."""
    values = [call.header(name) for name in _SIGNED_HEADERS]
    if values[2] == "0":
        values[2] = ""
    if call.header("x-ms-date"):
        values[5] = ""
    head = "\n".join([call.method, *values])
    resource = canonical_resource(account, call.path, call.query)
    return f"{head}\n{canonical_headers(call.headers)}{resource}"


def verify(call: Call, account: str, key: str) -> None:
    """Check the request's `Authorization: SharedKey account:signature`.

    Raises:
        Refusal: 403 AuthenticationFailed, with the string to sign in the detail as the service does.
    """
    scheme, _, rest = call.header("Authorization").partition(" ")
    if scheme != "SharedKey":
        raise refuse_authentication(f"Authorization scheme {scheme} is not simulated.")
    name, _, signature = rest.partition(":")
    if name != account:
        raise refuse_authentication(f"The account {name} is not the one addressed ({account}).")
    _check_date(call)
    text = string_to_sign(call, account)
    if not same(sign(key, text), signature):
        raise refuse_authentication(
            f"The MAC signature found in the HTTP request is not the same as any computed signature. "
            f"Server used following string to sign: '{text}'."
        )


def _check_date(call: Call) -> None:
    text = call.header("x-ms-date") or call.header("Date")
    try:
        sent = parsedate_to_datetime(text)
    except ValueError as err:
        raise refuse_authentication(f"x-ms-date is missing or no RFC 1123 date: {text!r}") from err
    sent = sent if sent.tzinfo else sent.replace(tzinfo=UTC)
    if abs(sent.timestamp() - call.now) > CLOCK_SKEW:
        now = datetime.fromtimestamp(call.now, UTC).isoformat()
        raise refuse_authentication(f"Request date header too old: {text!r}; it is {now} here.")
