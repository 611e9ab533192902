"""HTTP as values: what came, what goes back, and how an error becomes an answer (RFC 9457). No sockets.

The same values serve the unix socket and the requests that the relay passes through.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec

from protocol.errors import ProtocolError
from relay.errors import RelayError
from relay.signer.errors import BadRequest

JSON = "application/json"
MSGPACK = "application/msgpack"
PROBLEM = "application/problem+json"
TYPE_PREFIX = "urn:imageport:error:"
MAX_BODY = 1024 * 1024

Via = Literal["local", "relay"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is the path with its query, as the caller signed it; header names are lower case.

    `via` says which door it came through: only "local" (the unix socket, whose peer is the service user or
    root) may govern the signer.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    via: Via

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    def query(self, *allowed: str) -> dict[str, str]:
        """Return the query's parameters, each at most once.

        Raises:
            BadRequest: Unknown, repeated or too many.
        """
        try:
            pairs = parse_qs(
                self.target.partition("?")[2], keep_blank_values=True, max_num_fields=16
            )
        except ValueError as err:
            raise BadRequest("the query has too many fields") from err
        for name, values in pairs.items():
            if name not in allowed or len(values) != 1:
                msg = f"query parameter {name[:64]!r} is unknown or repeated"
                raise BadRequest(msg)
        return {name: values[0] for name, values in pairs.items()}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def json_response(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON."""
    return Response(status, {"content-type": JSON, **(headers or {})}, msgspec.json.encode(body))


def problem(error: RelayError | ProtocolError) -> Response:
    """Answer with what went wrong: stable `type` and `code`, facts of the case, no secret."""
    facts = {key: value for key, value in error.fields.items() if isinstance(value, str | int)}
    body: dict[str, Any] = {
        **facts,
        "type": TYPE_PREFIX + error.code,
        "title": getattr(error, "title", type(error).__name__),
        "status": error.http_status,
        "detail": str(error),
        "code": error.code,
    }
    if error.fix:
        body["fix"] = error.fix
    headers = {"content-type": PROBLEM}
    if error.retryable:
        headers["retry-after"] = "5"
    return Response(error.http_status, headers, msgspec.json.encode(body))


def read_json(request: Request, type_: type[msgspec.Struct] | type[Any]) -> Any:  # noqa: ANN401  (the caller's type)
    """Decode a JSON body into `type_`.

    Raises:
        BadRequest: Not JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(request.body, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        msg = f"the body does not fit: {err}"
        raise BadRequest(msg) from err
