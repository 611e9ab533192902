"""Where the proxy for uploads is asked to lead to: never where this site's uploads may not go."""

import pytest

from agent.config import Loaded, parse
from appliance.doctor.base import Context, Options
from appliance.doctor.checks.proxy import endpoints_of, upload_probe


def context(*targets: str, **policy: object) -> Context:
    return Context(Loaded(parse({"policy": policy}), {}), Options(targets=targets), lambda: 0.0)


@pytest.mark.parametrize(
    ("targets", "endpoints", "expected"),
    [
        (["https://a.example"], ["https://b.example"], "a.example:443"),
        ([], ["https://*.example", "https://b.example:8443"], "b.example:8443"),
        ([], ["*"], "management.azure.com:443"),
        ([], ["https://*.blob.core.windows.net"], "None"),
        ([], [], "None"),
    ],
    ids=["target", "policy", "all", "wildcards only", "nothing"],
)
def test_the_probe_is_an_endpoint_of_this_site(
    targets: list[str], endpoints: list[str], expected: str
) -> None:
    assert str(upload_probe(context(*targets, endpoints=endpoints))) == expected


def test_a_site_without_a_policy_of_its_own_asks_for_azures_public_cloud() -> None:
    assert str(upload_probe(context())) == "management.azure.com:443"


def test_an_endpoint_is_looked_at_once() -> None:
    found = endpoints_of(context("https://a.example", endpoints=["https://a.example", "https://*"]))
    assert found == ["https://a.example"]
