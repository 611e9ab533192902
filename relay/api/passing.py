"""What the signer answers: jobs, cancels and enrolments pass through as opaque bytes.

The signer authenticates callers by their own signature (protocol.caller); the API key only says whose requests may take
the relay's time. The key itself is never passed on.
"""

from aiohttp import web

from protocol.control import MAX_CALL_BODY, Call
from relay.api.auth import Caller
from relay.api.commands import read_body
from relay.api.context import IDEMPOTENCY_KEY, Api, Once, idempotency_key, read_query
from relay.api.models import EnrolQuery
from relay.errors import RateLimited
from relay.lobby import site_of
from relay.signers import Attachment

PASSED = ("content-type", "accept", IDEMPOTENCY_KEY.lower())
PASSED_PREFIX = "imageport-"
RETURNED = ("content-type", "location", "retry-after")
MAX_ENROLMENT = 16 * 1024


async def pass_on(api: Api, caller: Caller, request: web.Request) -> web.StreamResponse:
    """Hand a caller's request to the tenant's signer, once per Idempotency-Key."""
    key = idempotency_key(request, required=True)
    signers = api.shared.signers
    signer = signers.need(signers.of(caller.tenant))
    body = await read_body(request, MAX_CALL_BODY)
    with Once.of(api, caller, key, request, body) as once:
        before = await once.found()
        if before is not None:
            return before
        status, headers, answer = await _call(api, signer, request, body)
        kept = once.answer(status, headers, answer)
        if kept is not None and status < 400:
            await api.shared.store.save_answer(caller.tenant, kept, now=api.now_ms())
        return web.Response(body=answer, status=status, headers=headers)


async def enrol(api: Api, _caller: Caller, request: web.Request) -> web.StreamResponse:
    """Hand an appliance's enrolment to the signer: its token is the signer's to check, and unreadable here."""
    wait = api.enrolments.take(site_of(request.remote or ""), now=api.boot_s())
    if wait:
        raise RateLimited("too many enrolments from this address", retry_after=int(wait) + 1)
    tenant = read_query(request, EnrolQuery).tenant
    signers = api.shared.signers
    signer = signers.need(signers.of(tenant) if tenant else signers.any())
    body = await read_body(request, MAX_ENROLMENT)
    status, headers, answer = await _call(api, signer, request, body)
    return web.Response(body=answer, status=status, headers=headers)


async def _call(
    api: Api, signer: Attachment, request: web.Request, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    call = Call(
        call=0,
        method=request.method,
        path=request.raw_path[:4096],
        headers={
            name: value[:8192]
            for name, value in ((n.lower(), v) for n, v in request.headers.items())
            if name in PASSED or name.startswith(PASSED_PREFIX)
        },
        body=body,
    )
    reply = await signer.call(call, seconds=api.config.limits.call_s)
    headers = {
        name.title(): value for name, value in reply.headers.items() if name.lower() in RETURNED
    }
    return reply.status, headers, reply.body
