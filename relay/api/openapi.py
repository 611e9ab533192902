"""The OpenAPI 3.1 document, made from the table of routes and the structs; `relay/openapi.json` is its copy."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from relay.api.context import IDEMPOTENCY_KEY
from relay.api.models import Problem
from relay.api.route import Route
from relay.api.routes import METRICS, ROUTES
from relay.problems import CONTENT_TYPE

TITLE = "imageport relay"
VERSION = "1"
_REF = "#/components/schemas/{name}"
_ALWAYS = (400, 429, 500, 503, 507)
_PATH_PARAMETERS = {
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "appliance": {"type": "string", "pattern": "^[a-z0-9-]{1,64}$"},
}


def document() -> dict[str, Any]:
    """Return the document as plain values."""
    routes = (*ROUTES, METRICS)
    models = sorted(_models(routes), key=lambda model: model.__name__)
    schemas, components = msgspec.json.schema_components(models, ref_template=_REF)
    components |= {
        model.__name__: schema
        for model, schema in zip(models, schemas, strict=True)
        if "$ref" not in schema
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": VERSION,
            "description": "Stores and forwards signed commands. Errors are RFC 9457 problems with a stable `code`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def text() -> bytes:
    """Return the document as it is served and committed."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


COPY = Path(__file__).resolve().parents[1] / "openapi.json"
"""The committed copy; `python -m relay.api.openapi` writes it anew."""


def _models(routes: tuple[Route, ...]) -> set[type[msgspec.Struct]]:
    found: set[type[msgspec.Struct]] = {Problem}
    for route in routes:
        found |= {model for model in route.body.values() if model is not None}
        found |= {model for _, model in route.answers.values() if model is not None}
    return found


def _operation(route: Route) -> dict[str, Any]:
    words = [part.strip("{}.").replace(".", "-") for part in route.path.split("/") if part]
    operation: dict[str, Any] = {
        "operationId": "-".join([route.method.lower(), *words]),
        "summary": route.summary,
        "security": [] if route.role is None else [{"apiKey": []}],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_key_parameter(route)],
        "responses": _responses(route),
    }
    if route.role is not None:
        operation["x-role"] = route.role
    if route.body:
        content = {kind: _content(model) for kind, model in route.body.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in route.path
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(field.type)
        found.append(
            {"name": field.encode_name, "in": "query", "required": False, "schema": _plain(schema)}
        )
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave `null` out: a query has no null, a parameter that is not there is None."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return dict(choices[0])
    if None in schema.get("enum", ()):
        return schema | {"enum": [value for value in schema["enum"] if value is not None]}
    return schema


def _key_parameter(route: Route) -> list[dict[str, Any]]:
    if route.keyed is None:
        return []
    schema = {"type": "string", "pattern": "^[!-~]{1,128}$"}
    return [{"name": IDEMPOTENCY_KEY, "in": "header", "required": route.keyed, "schema": schema}]


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, (kind, model) in route.answers.items():
        found[str(status)] = {"description": HTTPStatus(status).phrase}
        if kind:
            found[str(status)]["content"] = {kind: _content(model)}
    known = () if route.role is None else (401, 403)
    for status in sorted({*_ALWAYS, *known, *route.errors}):
        found[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    return found


def _content(model: type[msgspec.Struct] | None) -> dict[str, Any]:
    return {} if model is None else {"schema": {"$ref": _REF.format(name=model.__name__)}}


if __name__ == "__main__":
    COPY.write_bytes(text())
