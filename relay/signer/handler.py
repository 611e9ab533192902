"""The signer's API: finds the route, authenticates, answers, turns errors into problem documents. No sockets, no await.

`handle` runs in one transaction of the database; both doors lead here: the unix socket and the requests
that the relay passes through.
"""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from protocol.errors import ProtocolError
from relay.errors import RelayError
from relay.signer import callers, enrolment, governance, jobs
from relay.signer.authority import Authority, Effects
from relay.signer.errors import BodyTooLarge, Forbidden, MethodNotAllowed, NotFound
from relay.signer.governance import Governor
from relay.signer.http import MAX_BODY, Request, Response, problem
from relay.signer.jobs import Context

_ID = "([a-z0-9-]{1,64})"

ForCallers: TypeAlias = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the API.

    `role` is the least role of a caller; "" is for the local administrator alone, None for anybody (what
    the request itself proves is checked by `answer`).
    """

    method: str
    path: str
    role: str | None
    answer: ForCallers


ROUTES = (
    Route("POST", "/v1/jobs", "operator", jobs.submit),
    Route("GET", "/v1/jobs", "reader", jobs.browse),
    Route("GET", f"/v1/jobs/{_ID}", "reader", jobs.show),
    Route("POST", f"/v1/jobs/{_ID}/cancel", "operator", jobs.cancel),
    Route("POST", "/v1/enrolments", None, enrolment.enrol),
    Route("POST", "/v1/tokens", "", governance.create_token),
    Route("GET", "/v1/appliances", "", governance.list_appliances),
    Route("POST", f"/v1/appliances/{_ID}/revoke", "", governance.revoke_appliance),
    Route("POST", f"/v1/appliances/{_ID}/raise-epoch", "", governance.raise_epoch),
    Route("GET", "/v1/callers", "", governance.list_callers),
    Route("POST", "/v1/callers", "", governance.add_caller),
    Route("POST", f"/v1/callers/{_ID}/revoke", "", governance.revoke_caller),
    Route("PUT", "/v1/manifest", "", governance.replace_manifest),
    Route("GET", "/v1/status", "", governance.status),
)

Answered: TypeAlias = tuple[Response, Effects]


def handle(conn: sqlite3.Connection, authority: Authority, request: Request) -> Answered:
    """Answer one request inside a transaction.

    Raises:
        RelayError, ProtocolError: Refused; whoever owns the transaction undoes it and answers `refusal(err)`.
    """
    if len(request.body) > MAX_BODY:
        msg = f"{len(request.body)} bytes of body, at most {MAX_BODY} are read"
        raise BodyTooLarge(msg)
    route, names = _find(request)
    effects = Effects()
    if route.role is None:
        return route.answer(conn, authority, request, effects), effects
    if route.role == "":
        if request.via != "local":
            msg = f"{request.path} is answered on the signer's own socket only"
            raise Forbidden(msg)
        return route.answer(Governor(conn, authority, request, effects), *names), effects
    caller = callers.authenticate(conn, authority, request)
    caller.check_role(route.role)
    return route.answer(Context(conn, authority, caller, request, effects), *names), effects


def refusal(error: RelayError | ProtocolError) -> Response:
    """Return the answer to a request that was refused."""
    return problem(error)


def _find(request: Request) -> tuple[Route, tuple[str, ...]]:
    allowed = []
    for route in ROUTES:
        match = re.fullmatch(route.path, request.path)
        if match is None:
            continue
        if route.method == request.method:
            return route, match.groups()
        allowed.append(route.method)
    if allowed:
        msg = f"{request.path} takes {', '.join(allowed)}"
        raise MethodNotAllowed(msg)
    raise NotFound("there is no such path")
