import json

import pytest

from protocol.codec import decode, encode
from protocol.enrol import EnrolAnswer, Token
from protocol.messages import MAX_MANIFEST
from protocol.sealing import SealKey
from protocol.signed import SigningKey
from relay.signer.http import Request
from tests.support.signer_device import TENANT, Device
from tests.support.signer_kit import Kit, make_kit


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def _device(kit: Kit) -> Device:
    return Device(kit, SigningKey.generate(), SealKey.generate())


def _answer(body: bytes) -> EnrolAnswer:
    return decode(body, EnrolAnswer, limit=2 * MAX_MANIFEST)


def test_a_tokens_holder_gets_a_record_over_its_own_keys(kit: Kit) -> None:
    device = kit.enrol(name="hall-7")
    assert device.record is not None
    assert (device.record.id, device.record.tenant, device.record.epoch) == ("hall-7", TENANT, 1)
    assert device.record.device_key == device.key.public
    assert device.record.seal_key == device.seal.public


def test_the_same_token_and_keys_get_the_same_record_and_count_once(kit: Kit) -> None:
    device, token = _device(kit), kit.token()
    first, second = device.ask_to_enrol(token), device.ask_to_enrol(token)
    assert second.body == first.body
    kit.now_ms += (
        30 * 24 * 3600 * 1000
    )  # also when the token has ended: the first answer may have been lost
    assert device.ask_to_enrol(token).body == first.body


def test_a_one_use_token_enrols_one_device(kit: Kit) -> None:
    token = kit.token()
    assert _device(kit).ask_to_enrol(token).status == 200
    response = _device(kit).ask_to_enrol(token)
    assert (response.status, json.loads(response.body)["code"]) == (403, "enrol.rejected")


def test_a_token_ends(kit: Kit) -> None:
    token = kit.token(ttl_s=60)
    kit.now_ms += 61_000
    assert _device(kit).ask_to_enrol(token).status == 403


def test_a_proof_with_another_secret_is_answered_like_an_unknown_token(kit: Kit) -> None:
    token = kit.token()
    wrong = _device(kit).ask_to_enrol(Token(token.id, bytes(32), token.root_fingerprint))
    unknown = _device(kit).ask_to_enrol(Token("t-0", bytes(32), token.root_fingerprint))
    assert wrong.status == unknown.status == 403
    assert wrong.body == unknown.body
    assert _device(kit).ask_to_enrol(token).status == 200  # and no use was counted


def test_keys_that_a_relay_put_in_place_of_the_devices_do_not_fit_the_proof(kit: Kit) -> None:
    token, device, relay = kit.token(), _device(kit), SealKey.generate()
    honest = device.request(token)
    forged = type(honest)(
        **{name: getattr(honest, name) for name in honest.__struct_fields__}
        | {"seal_key": relay.public}
    )
    response = kit.send(Request("POST", "/v1/enrolments", {}, encode(forged), "relay"))
    assert response.status == 403


def test_an_id_is_never_given_twice(kit: Kit) -> None:
    first, second = kit.enrol(name="site"), kit.enrol(name="site")
    assert first.id == "site"
    assert second.id != first.id
    assert second.id.startswith("site-")


def test_the_same_device_key_with_a_new_token_is_the_same_appliance(kit: Kit) -> None:
    device = kit.enrol()
    before = device.id
    again = _answer(device.ask_to_enrol(kit.token()).body)
    device.enrol(kit.token())
    assert device.id == before
    assert again.record


def test_a_device_key_with_another_seal_key_is_refused(kit: Kit) -> None:
    device = kit.enrol()
    device.seal = SealKey.generate()
    assert device.ask_to_enrol(kit.token()).status == 403


def test_a_replaced_appliance_is_retired(kit: Kit) -> None:
    old = kit.enrol(name="old")
    new = kit.enrol(name="new", token=kit.token(replaces="old"))
    assert new.record is not None
    assert new.record.replaces == "old"
    assert kit.effects.replay == set()
    response = kit.call("POST", "/v1/jobs", kit.spec(old))
    assert json.loads(response.body)["code"] == "signer.appliance-revoked"


def test_a_revoked_appliance_is_not_enrolled_again_with_its_keys(kit: Kit) -> None:
    device = kit.enrol()
    kit.local("POST", f"/v1/appliances/{device.id}/revoke")
    assert device.ask_to_enrol(kit.token()).status == 403


def test_a_tokens_secret_lies_nowhere_in_clear(kit: Kit) -> None:
    token = kit.token()
    assert token.secret not in kit.conn.serialize()


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x81" * 100, b"x" * 70_000], ids=len)
def test_bytes_that_are_no_request_are_refused(kit: Kit, body: bytes) -> None:
    response = kit.send(Request("POST", "/v1/enrolments", {}, body, "relay"))
    assert 400 <= response.status < 500
