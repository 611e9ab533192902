"""What the storage planes of the simulator share: request ids, required headers, refusals as XML."""

import re
from datetime import UTC, datetime
from itertools import count
from xml.sax.saxutils import escape

from appliance.sim.azure.conditions import invalid_header
from appliance.sim.azure.pageblob import missing_header, xml
from appliance.sim.call import Call, Refusal, Reply

DEFAULT_VERSION = "2021-12-02"
_VERSION = re.compile(r"20\d\d-\d\d-\d\d")
_ids = count(1)


def check_version(call: Call) -> None:
    """Require x-ms-version where the service does: on everything that is not authorized by a SAS."""
    version = call.header("x-ms-version")
    if not version and "sig" not in call.query:
        raise missing_header("x-ms-version")
    if version and not _VERSION.fullmatch(version):
        raise invalid_header("x-ms-version", version, "no version of the service")


def finish(call: Call, reply: Reply) -> Reply:
    """Add the headers that every answer has."""
    headers = reply.headers
    headers["x-ms-request-id"] = f"00000000-0000-4000-8000-{next(_ids):012x}"
    headers["x-ms-version"] = call.header("x-ms-version") or DEFAULT_VERSION
    client_id = call.header("x-ms-client-request-id")
    if client_id.isascii() and client_id:
        headers["x-ms-client-request-id"] = client_id
    return reply


def refuse(call: Call, refusal: Refusal) -> Reply:
    """Put a refusal into the storage services' XML form; HEAD and 304 have the code in a header only."""
    headers = {"x-ms-error-code": refusal.code, **refusal.headers}
    reply = finish(call, Reply(refusal.status, headers))
    if call.method == "HEAD" or refusal.status == 304:
        return reply
    when = datetime.fromtimestamp(call.now, UTC).isoformat()
    message = f"{refusal.message}\nRequestId:{headers['x-ms-request-id']}\nTime:{when}"
    tag = (
        "AuthenticationErrorDetail"
        if refusal.code == "AuthenticationFailed"
        else "ExceptionDetails"
    )
    detail = f"<{tag}>{escape(refusal.detail)}</{tag}>" if refusal.detail else ""
    reply.headers["Content-Type"] = "application/xml"
    reply.body = xml(
        f"<Error><Code>{refusal.code}</Code><Message>{escape(message)}</Message>{detail}</Error>"
    )
    return reply
