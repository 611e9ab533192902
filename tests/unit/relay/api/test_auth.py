import hashlib

import pytest

from relay.api.auth import Caller, Keys
from relay.config import ApiKey
from relay.errors import Forbidden, Unauthorized


def key(name: str, role, tenant: str = "acme") -> ApiKey:
    return ApiKey(
        id=name, tenant=tenant, role=role, sha256=hashlib.sha256(name.encode()).hexdigest()
    )


KEYS = Keys((key("r", "reader"), key("o", "operator"), key("a", "admin"), key("c", "control", "*")))


@pytest.mark.parametrize(
    ("name", "role", "allowed"),
    [
        ("r", "reader", True),
        ("r", "operator", False),
        ("o", "operator", True),
        ("o", "admin", False),
        ("a", "reader", True),
        ("c", "reader", False),
    ],
)
def test_roles_rank(name: str, role, allowed: bool) -> None:
    if allowed:
        assert KEYS.caller(f"Bearer {name}", role=role).id == name
    else:
        with pytest.raises(Forbidden):
            KEYS.caller(f"Bearer {name}", role=role)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic r", "Bearer x", "r", "Bearer \udcff"]
)
def test_unknown_is_unauthorized(header: str | None) -> None:
    with pytest.raises(Unauthorized):
        KEYS.caller(header, role="reader")


def test_only_a_control_key_is_a_signers() -> None:
    assert KEYS.control("c") == Caller("c", "*", "control")
    with pytest.raises(Forbidden):
        KEYS.control("a")
    with pytest.raises(Unauthorized):
        KEYS.control("nobody")


def test_every_key_is_compared_whatever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    KEYS.caller("Bearer r", role="reader")
    assert len(compared) == 4
