import re

from relay import errors
from relay.api import openapi
from relay.api.routes import METRICS, ROUTES

DOCUMENT = openapi.document()


def test_every_route_is_in_the_document_with_its_security() -> None:
    for route in (*ROUTES, METRICS):
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert bool(operation["security"]) is (route.role is not None)
        assert {str(status) for status in route.answers} <= operation["responses"].keys()


def test_every_parameter_of_a_path_is_described() -> None:
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))


def test_operations_have_names_of_their_own() -> None:
    names = [op["operationId"] for item in DOCUMENT["paths"].values() for op in item.values()]
    assert len(names) == len(set(names))


def test_references_lead_somewhere() -> None:
    names = set(re.findall(rb'"#/components/schemas/(\w+)"', openapi.text()))
    assert {name.decode() for name in names} <= DOCUMENT["components"]["schemas"].keys()


def test_every_post_takes_an_idempotency_key() -> None:
    for route in ROUTES:
        if route.method == "POST" and route.role is not None:
            assert route.keyed is not None


def test_codes_of_the_relay_begin_with_its_name() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.RelayError)
    ]
    assert all(cls.code.startswith("relay.") for cls in classes)
    assert all(cls.title for cls in classes)
