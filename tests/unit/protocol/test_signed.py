"""Envelopes: what the signature is over, and that nothing else verifies."""

import pytest

from protocol.codec import encode
from protocol.errors import BadField, BadSignature
from protocol.ids import digest_of, key_id
from protocol.messages import MAX_STATEMENT, Ack, Kind
from protocol.signed import (
    Envelope,
    SigningKey,
    open_statement,
    parse_envelope,
    sign,
    signed_bytes,
    verify,
)
from tests.support import protocol_world as w

ACK = Ack(epoch=1, have=2, head=b"h" * 32)
DATA = sign(Kind.ACK, ACK, w.DEVICE)


def test_signed_bytes_name_the_kind() -> None:
    assert signed_bytes(Kind.COMMAND, b"p") == b"imageport/command/v1\x00p"
    assert len({signed_bytes(kind, b"") for kind in Kind}) == len(Kind)


def test_a_statement_opens_with_its_key() -> None:
    envelope, ack = open_statement(Kind.ACK, DATA, Ack, public=w.DEVICE.public, limit=MAX_STATEMENT)
    assert ack == ACK
    assert envelope.digest == digest_of(encode(ACK))
    assert envelope.k == w.DEVICE.kid == key_id(w.DEVICE.public)


@pytest.mark.parametrize(
    ("kind", "public"),
    [(Kind.NACK, w.DEVICE.public), (Kind.ACK, w.OTHER_DEVICE.public), (Kind.ACK, b"\xff" * 32)],
    ids=["kind", "key", "no key at all"],
)
def test_another_kind_or_key_does_not_verify(kind: Kind, public: bytes) -> None:
    with pytest.raises(BadSignature):
        verify(kind, parse_envelope(DATA, limit=MAX_STATEMENT), public)


def test_the_payload_is_not_decoded_before_it_is_verified() -> None:
    forged = encode(Envelope(v=1, k=w.DEVICE.kid, p=b"\xc1", s=bytes(64)))
    with pytest.raises(BadSignature):
        open_statement(Kind.ACK, forged, Ack, public=w.DEVICE.public, limit=MAX_STATEMENT)


@pytest.mark.parametrize("field", [{"v": 2}, {"k": b"short"}, {"s": bytes(63)}, {"x": 1}])
def test_an_envelope_has_exactly_its_fields(field: dict[str, object]) -> None:
    data = encode({"v": 1, "k": bytes(16), "p": b"", "s": bytes(64)} | field)
    with pytest.raises(BadField):
        parse_envelope(data, limit=MAX_STATEMENT)


def test_keys_come_back_from_their_seed_and_never_print_it() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_seed(key.seed).public == key.public
    assert key.seed.hex() not in repr(key)
    assert repr(key) == "SigningKey()"
