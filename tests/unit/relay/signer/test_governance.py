import json

import pytest

from protocol.signed import SigningKey
from tests.support.signer_device import TENANT
from tests.support.signer_kit import Kit, make_kit


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def test_appliances_are_listed_with_their_lines(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    (shown,) = json.loads(kit.local("GET", "/v1/appliances").body)["appliances"]
    assert (shown["id"], shown["epoch"], shown["signed"], shown["waiting"]) == (device.id, 1, 1, 1)
    assert shown["blocked"] == ""
    assert "upload/1" in shown["capabilities"]


def test_revoking_signs_a_record_and_ends_orders_for_good(kit: Kit) -> None:
    device = kit.enrol()
    shown = json.loads(kit.local("POST", f"/v1/appliances/{device.id}/revoke").body)
    assert (shown["serial"], shown["revoked"]) == (2, kit.now_ms)
    assert kit.effects.replay == {device.id}
    response = kit.call("POST", "/v1/jobs", kit.spec(device))
    assert json.loads(response.body)["code"] == "signer.appliance-revoked"
    again = json.loads(kit.local("POST", f"/v1/appliances/{device.id}/revoke").body)
    assert again["serial"] == 2


def test_callers_are_added_changed_listed_and_revoked(kit: Kit) -> None:
    device, key = kit.enrol(), SigningKey.generate()
    spec = {"public": key.public.hex(), "tenant": TENANT, "role": "reader", "name": "eye"}
    kid = json.loads(kit.local("POST", "/v1/callers", spec).body)["id"]
    assert kit.call("POST", "/v1/jobs", kit.spec(device), caller=key).status == 403
    kit.local("POST", "/v1/callers", {**spec, "role": "operator"})
    assert kit.call("POST", "/v1/jobs", kit.spec(device), caller=key).status == 202
    listed = json.loads(kit.local("GET", "/v1/callers").body)["callers"]
    assert {
        "id": kid,
        "name": "eye",
        "tenant": TENANT,
        "role": "operator",
        "revoked": None,
    } in listed
    assert kit.local("POST", f"/v1/callers/{kid}/revoke").status == 200
    assert kit.call("GET", "/v1/jobs", caller=key).status == 401
    assert kit.local("POST", f"/v1/callers/{kid}/revoke").status == 404


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"tenant": "Not An Id"},
        {"tenant": TENANT, "uses": 0},
        {"tenant": TENANT, "uses": 1001},
        {"tenant": TENANT, "ttl_s": 8 * 24 * 3600},
        {"tenant": TENANT, "replaces": "site-1", "uses": 2},
        {"tenant": TENANT, "more": 1},
    ],
    ids=str,
)
def test_a_token_beyond_the_bounds_is_not_made(kit: Kit, spec: dict[str, object]) -> None:
    kit.enrol()
    before = kit.conn.execute("SELECT count(*) FROM tokens").fetchone()[0]
    assert kit.local("POST", "/v1/tokens", spec).status == 400
    assert kit.conn.execute("SELECT count(*) FROM tokens").fetchone()[0] == before


def test_a_token_that_replaces_nobody_is_not_made(kit: Kit) -> None:
    response = kit.local("POST", "/v1/tokens", {"tenant": TENANT, "replaces": "nobody"})
    assert response.status == 404


def test_every_act_is_in_the_audit_log_and_no_secret(kit: Kit) -> None:
    token = kit.token()
    device = kit.enrol(token=token)
    kit.order(device)
    kit.local("POST", f"/v1/appliances/{device.id}/revoke")
    rows = kit.conn.execute("SELECT action, detail FROM audit ORDER BY n").fetchall()
    assert [row["action"] for row in rows] == [
        "token.made",
        "appliance.enrolled",
        "command.signed",
        "appliance.revoked",
    ]
    assert token.text().split(".")[1] not in "".join(row["detail"] for row in rows)


@pytest.mark.parametrize("name", ["nobody", "x" * 64])
@pytest.mark.parametrize("act", ["revoke", "raise-epoch"])
def test_acts_on_nobody_are_not_found(kit: Kit, name: str, act: str) -> None:
    assert kit.local("POST", f"/v1/appliances/{name}/{act}").status == 404
