"""Enrolment tokens and the proof that binds both keys to their holder."""

import msgspec
import pytest

from protocol.enrol import EnrolRequest, Token, check_proof, parse_token, proof, root_fingerprint
from protocol.errors import EnrolmentRejected
from tests.support import protocol_world as w

TOKEN = Token("tok-1", b"S" * 32, root_fingerprint(w.ROOT.public))


def _request(**changes: object) -> EnrolRequest:
    nonce = b"N" * 16
    mac = proof(TOKEN.id, TOKEN.secret, w.DEVICE.public, w.SEAL.public, nonce)
    row = EnrolRequest(
        v=1,
        token=TOKEN.id,
        device_key=w.DEVICE.public,
        seal_key=w.SEAL.public,
        nonce=nonce,
        mac=mac,
    )
    return msgspec.structs.replace(row, **changes)


def test_a_token_survives_copy_and_paste_and_never_prints_its_secret() -> None:
    assert parse_token(f"  {TOKEN.text()}\n") == TOKEN
    assert "secret" not in repr(TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        TOKEN.text()[:-1],
        "UPPER" + TOKEN.text(),
        TOKEN.text().replace("U", "!"),
    ],
    ids=["empty", "two parts", "four parts", "cut", "bad id", "bad base64"],
)
def test_a_damaged_token_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(EnrolmentRejected) as caught:
        parse_token(text)
    assert not text or text not in str(caught.value)


def test_the_proof_is_the_holders() -> None:
    check_proof(_request(), TOKEN.secret)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "tok-2"},
        {"device_key": w.OTHER_DEVICE.public},
        {"seal_key": bytes(32)},
        {"nonce": b"M" * 16},
        {"mac": bytes(32)},
    ],
    ids="-".join,
)
def test_nothing_in_the_request_can_be_exchanged(changes: dict[str, object]) -> None:
    with pytest.raises(EnrolmentRejected):
        check_proof(_request(**changes), TOKEN.secret)


def test_another_secret_proves_nothing() -> None:
    with pytest.raises(EnrolmentRejected):
        check_proof(_request(), b"T" * 32)
