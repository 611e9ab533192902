"""The token endpoint gives tokens to its client only; tokens are checked for audience, time and signature."""

import json
from urllib.parse import urlencode

import pytest

from appliance.sim.azure.state import new_identity
from appliance.sim.azure.tokens import MANAGEMENT, STORAGE, TokenPlane
from appliance.sim.call import Refusal
from tests.support.simcalls import NOW, call

IDENTITY = new_identity("acc")
GOOD = {
    "grant_type": "client_credentials",
    "client_id": IDENTITY.client_id,
    "client_secret": IDENTITY.client_secret,
    "scope": "https://management.azure.com/.default",
}


@pytest.fixture
def plane() -> TokenPlane:
    plane = TokenPlane(IDENTITY)
    plane.base_url = "http://sim"
    return plane


async def _post(plane: TokenPlane, **changes: str) -> dict[str, object]:
    body = urlencode(GOOD | changes).encode()
    reply = await plane.answer(call("POST", f"/{IDENTITY.tenant}/oauth2/v2.0/token", {}, body))
    return dict(json.loads(reply.body))


async def test_issued_token_is_accepted(plane: TokenPlane) -> None:
    token = (await _post(plane))["access_token"]
    plane.check(call("GET", "/x", {"Authorization": f"Bearer {token}"}), MANAGEMENT)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 400, "unauthorized_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"scope": "https://graph.microsoft.com/.default"}, 400, "invalid_resource"),
    ],
    ids=["secret", "client", "grant", "scope"],
)
async def test_wrong_request_gets_no_token(
    plane: TokenPlane, changes: dict[str, str], status: int, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        await _post(plane, **changes)
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_other_tenant_is_unknown(plane: TokenPlane) -> None:
    with pytest.raises(Refusal, match="AADSTS90002"):
        await plane.answer(call("POST", "/other/oauth2/v2.0/token"))


async def test_discovery_points_back_here(plane: TokenPlane) -> None:
    path = f"/{IDENTITY.tenant}/v2.0/.well-known/openid-configuration"
    found = json.loads((await plane.answer(call("GET", path))).body)
    assert found["token_endpoint"] == f"http://sim/{IDENTITY.tenant}/oauth2/v2.0/token"


def _checked(plane: TokenPlane, authorization: str) -> str:
    with pytest.raises(Refusal) as caught:
        plane.check(call("GET", "/x", {"Authorization": authorization}), MANAGEMENT)
    assert caught.value.status == 401
    assert "WWW-Authenticate" in caught.value.headers
    return caught.value.code


def test_bad_tokens_are_refused(plane: TokenPlane) -> None:
    good = plane.issue(MANAGEMENT, now=NOW, lifetime=10)
    old = plane.issue(MANAGEMENT, now=NOW - 10, lifetime=10)
    other = plane.issue(STORAGE, now=NOW, lifetime=10)
    assert _checked(plane, "") == "AuthenticationFailed"
    assert _checked(plane, f"Bearer {good[:-2]}") == "InvalidAuthenticationToken"
    assert _checked(plane, "Bearer what") == "InvalidAuthenticationToken"
    assert _checked(plane, f"Bearer {old}") == "ExpiredAuthenticationToken"
    assert _checked(plane, f"Bearer {other}") == "InvalidAuthenticationTokenAudience"
