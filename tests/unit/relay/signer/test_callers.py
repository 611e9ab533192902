import json
from dataclasses import replace

import pytest

from protocol.ids import key_id
from protocol.signed import SigningKey
from relay.signer.callers import add as add_caller
from relay.signer.callers import revoke
from relay.signer.http import Request
from tests.support.signer_device import TENANT
from tests.support.signer_kit import Kit, make_kit

MINUTE_MS = 60_000


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def test_a_signed_request_is_its_callers(kit: Kit) -> None:
    assert kit.call("GET", "/v1/jobs").status == 200


def test_an_unsigned_request_through_the_relay_is_nobodys(kit: Kit) -> None:
    headers = {"authorization": "Bearer ipk-whatever"}
    response = kit.send(Request("GET", "/v1/jobs", headers, b"", "relay"))
    assert (response.status, json.loads(response.body)["code"]) == (401, "signer.not-authenticated")


@pytest.mark.parametrize("part", ["method", "target", "body", "key", "time", "signature", "caller"])
def test_a_request_that_was_altered_on_its_way_is_refused(kit: Kit, part: str) -> None:
    device = kit.enrol()
    request = kit.signed("POST", "/v1/jobs", kit.spec(device))
    headers = dict(request.headers)
    changes: dict[str, object] = {"headers": headers}
    match part:
        case "method":
            changes["method"] = "GET"
        case "target":
            changes["target"] = "/v1/jobs?x=1"
        case "body":
            changes["body"] = request.body.replace(b"diagnostics", b"sweep")
        case "key":
            headers["idempotency-key"] = "another"
        case "time":
            headers["imageport-time"] = str(kit.now_ms + 1)
        case "signature":
            headers["imageport-signature"] = "AAAA"
        case "caller":
            headers["imageport-caller"] = key_id(SigningKey.generate().public).hex()
    assert kit.send(replace(request, **changes)).status == 401  # type: ignore[arg-type]
    assert kit.line(device).head.have == 0


@pytest.mark.parametrize("time", ["9" * 400, "9" * 5000, "-1", "", "\uff11", "nan"])
def test_a_time_that_is_none_is_refused(kit: Kit, time: str) -> None:
    request = kit.signed("GET", "/v1/jobs")
    headers = {**request.headers, "imageport-time": time}
    assert kit.send(replace(request, headers=headers)).status == 401


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_request_signed_far_from_our_clock_is_refused(kit: Kit, minutes: int) -> None:
    response = kit.call("GET", "/v1/jobs", at=kit.now_ms + minutes * MINUTE_MS)
    assert response.status == 401


def test_a_replayed_order_makes_nothing_new_inside_the_window_and_is_refused_after_it(
    kit: Kit,
) -> None:
    device = kit.enrol()
    request = kit.signed("POST", "/v1/jobs", kit.spec(device))
    first = kit.send(request)
    kit.now_ms += 4 * MINUTE_MS
    assert kit.send(request).body == first.body
    kit.now_ms += 2 * MINUTE_MS
    assert kit.send(request).status == 401
    assert kit.line(device).head.have == 1


def test_a_reader_reads_and_orders_nothing(kit: Kit) -> None:
    device = kit.enrol()
    reader = SigningKey.generate()
    add_caller(kit.conn, reader.public, name="r", tenant=TENANT, role="reader", at=0)
    assert kit.call("GET", "/v1/jobs", caller=reader).status == 200
    assert kit.call("POST", "/v1/jobs", kit.spec(device), caller=reader).status == 403


def test_a_revoked_caller_is_nobody(kit: Kit) -> None:
    revoke(kit.conn, key_id(kit.caller.public), at=kit.now_ms)
    assert kit.call("GET", "/v1/jobs").status == 401


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/tokens"),
        ("GET", "/v1/appliances"),
        ("POST", "/v1/appliances/site-1/revoke"),
        ("POST", "/v1/appliances/site-1/raise-epoch"),
        ("GET", "/v1/callers"),
        ("POST", "/v1/callers"),
        ("POST", "/v1/callers/00/revoke"),
        ("PUT", "/v1/manifest"),
        ("GET", "/v1/status"),
    ],
)
def test_nobody_governs_the_signer_through_the_relay(kit: Kit, method: str, target: str) -> None:
    kit.enrol()
    admin = SigningKey.generate()
    add_caller(kit.conn, admin.public, name="a", tenant=TENANT, role="admin", at=0)
    response = kit.call(method, target, {"tenant": TENANT}, caller=admin)
    assert (response.status, json.loads(response.body)["code"]) == (403, "signer.forbidden")


def test_unknown_paths_and_methods_are_named(kit: Kit) -> None:
    assert kit.call("GET", "/v1/nothing").status == 404
    assert kit.call("DELETE", "/v1/jobs").status == 405
    assert kit.local("GET", "/v1/jobs/../tokens").status == 404
