"""Errors as RFC 9457 documents: every one that leaves the relay, also 404, 405, 413 and 500. Decides nothing else."""

import secrets
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from protocol.errors import ProtocolError
from relay import errors
from relay.errors import RelayError

TYPE_PREFIX = "urn:imageport:error:"
CONTENT_TYPE = "application/problem+json"

_BY_STATUS: dict[int, type[RelayError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    408: errors.TooSlow,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    503: errors.Busy,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


def problem(
    error: RelayError | ProtocolError, *, instance: str = "", status: int = 0
) -> web.Response:
    """Answer with what went wrong: stable `type` and `code`, facts of the case, no secret."""
    facts = {key: value for key, value in error.fields.items() if isinstance(value, str | int)}
    body = facts | {
        "type": TYPE_PREFIX + error.code,
        "title": getattr(error, "title", "Refused by the protocol"),
        "status": status or error.http_status,
        "code": error.code,
        "detail": str(error),
        "instance": instance or f"urn:imageport:request:{secrets.token_hex(8)}",
    }
    if error.fix:
        body["fix"] = error.fix
    headers = {}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.http_status in (429, 503):
        headers["Retry-After"] = str(error.fields.get("retry_after", 1))
    return web.Response(
        body=msgspec.json.encode(body),
        status=status or error.http_status,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


def of_http(err: web.HTTPException) -> web.Response:
    """Turn one of aiohttp's own answers into a problem; its Allow and Retry-After headers stay."""
    cls = _BY_STATUS.get(err.status, errors.BadRequest if err.status < 500 else errors.Internal)
    error = cls(err.text or err.reason)
    answer = problem(error, status=err.status)
    for name in ("Allow", "Retry-After"):
        if name in err.headers:
            answer.headers[name] = err.headers[name]
    return answer


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Catch what handlers raise; nothing else in the REST interface does."""
    try:
        return await handler(request)
    except web.HTTPException as err:
        if err.status < 400:
            raise
        return of_http(err)
    except (RelayError, ProtocolError) as err:
        if err.http_status >= 500:
            log.warning("request failed", path=request.path, code=err.code, error=str(err))
        return problem(err)
    except ConnectionError:
        raise
    except Exception:  # a defect: the caller gets a number, the log the traceback
        instance = f"urn:imageport:request:{secrets.token_hex(8)}"
        log.exception("request failed", path=request.path, instance=instance)
        return problem(
            errors.Internal("the relay has a defect; its log says more"), instance=instance
        )
