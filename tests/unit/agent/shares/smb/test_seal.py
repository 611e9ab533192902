"""Frames of a server: only the honest ones pass. Signed and sealed here by an independent hand."""

import os
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from agent.shares.smb import seal
from agent.shares.smb.seal import Tampered

KEY = bytes(range(16))
SESSION = 0x1122334455667788
GCM, CCM = 2, 1


def _message(body: bytes = b"body", flags: int = 0x09) -> bytes:
    head = struct.pack(
        "<4sHHIHHIIQIIQ16s", b"\xfeSMB", 64, 1, 0, 8, 5, flags, 0, 7, 0, 3, SESSION, bytes(16)
    )
    return head + body


def _signed(message: bytes, algorithm: int) -> bytearray:
    if algorithm == seal.GMAC_ID:
        nonce = (7).to_bytes(8, "little") + (1).to_bytes(4, "little")
        mac = AESGCM(KEY).encrypt(nonce, b"", message)
    else:
        cmac = CMAC(algorithms.AES(KEY))
        cmac.update(message)
        mac = cmac.finalize()
    return bytearray(message[:48] + mac + message[64:])


def _sealed(message: bytes, cipher: int) -> bytearray:
    nonce = os.urandom(12 if cipher == GCM else 11)
    rest = nonce.ljust(16, b"\0") + struct.pack("<IHHQ", len(message), 0, 1, SESSION)
    aead = AESGCM(KEY) if cipher == GCM else AESCCM(KEY)
    text = aead.encrypt(nonce, message, rest)
    return bytearray(b"\xfdSMB" + text[-16:] + rest + text[:-16])


def _keys(*, cipher: int = GCM, algorithm: int = seal.GMAC_ID, session: int = SESSION) -> seal.Keys:
    return seal.Keys(session, KEY, algorithm, cipher, KEY, KEY)


def _open(frame: bytearray, cipher: int, session: int = SESSION) -> bytes:
    return bytes(seal.open_sealed(memoryview(frame), _keys(cipher=cipher, session=session)))


def _verify(frame: bytearray, algorithm: int) -> None:
    view = memoryview(frame)
    seal.verify_signature(view, seal.parse_head(view), _keys(algorithm=algorithm))


def test_head_has_every_field_at_its_place() -> None:
    head = seal.parse_head(memoryview(_message()))
    assert (head.status, head.command, head.credits, head.message_id) == (0, 8, 5, 7)
    assert (head.session_id, head.signed, head.signature) == (SESSION, True, bytes(16))


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"\xffSMB"), (4, b"\x41\0"), (16, b"\0\0\0\0"), (20, b"\x40\0\0\0")],
    ids=["SMB1", "header size", "a request", "a chain"],
)
def test_what_is_no_single_answer_is_refused(offset: int, value: bytes) -> None:
    message = bytearray(_message())
    message[offset : offset + len(value)] = value
    with pytest.raises(Tampered):
        seal.parse_head(memoryview(message))


@given(st.integers(0, 63))
def test_a_truncated_header_is_refused(length: int) -> None:
    with pytest.raises(Tampered):
        seal.parse_head(memoryview(_message()[:length]))


@pytest.mark.parametrize("algorithm", [seal.GMAC_ID, seal.CMAC_ID])
def test_a_good_signature_passes(algorithm: int) -> None:
    _verify(_signed(_message(), algorithm), algorithm)


@pytest.mark.parametrize("algorithm", [seal.GMAC_ID, seal.CMAC_ID])
@given(bit=st.integers(0, 8 * 68 - 1))
def test_no_flipped_bit_of_a_signed_answer_passes(algorithm: int, bit: int) -> None:
    frame = _signed(_message(), algorithm)
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Tampered):
        _verify(frame, algorithm)


def test_an_unsigned_answer_is_refused() -> None:
    with pytest.raises(Tampered, match="unsigned"):
        _verify(bytearray(_message(flags=1)), seal.GMAC_ID)


@pytest.mark.parametrize("cipher", [GCM, CCM])
def test_a_sealed_message_opens(cipher: int) -> None:
    message = _message(os.urandom(1000))
    frame = _sealed(message, cipher)
    assert seal.is_sealed(memoryview(frame))
    assert _open(frame, cipher) == message


@pytest.mark.parametrize("cipher", [GCM, CCM])
@given(bit=st.integers(8 * 4, 8 * (52 + 68) - 1))
def test_no_flipped_bit_of_a_sealed_frame_passes(cipher: int, bit: int) -> None:
    frame = _sealed(_message(), cipher)
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Tampered):
        _open(frame, cipher)


@pytest.mark.parametrize("cipher", [GCM, CCM])
@given(length=st.integers(0, 52 + 67))
def test_a_truncated_sealed_frame_is_refused(cipher: int, length: int) -> None:
    with pytest.raises(Tampered):
        _open(_sealed(_message(), cipher)[:length], cipher)


def test_another_sessions_frame_is_refused() -> None:
    with pytest.raises(Tampered):
        _open(_sealed(_message(), GCM), GCM, SESSION + 1)


# --- what we send ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [seal.GMAC_ID, seal.CMAC_ID])
@pytest.mark.parametrize("data", [b"", b"x", os.urandom(100_000)], ids=len)
def test_a_request_is_signed_over_all_of_its_parts(algorithm: int, data: bytes) -> None:
    head = bytearray(_message(flags=seal.FLAG_SIGNED))
    seal.sign(head, data, _keys(algorithm=algorithm), 7)
    whole = bytes(head[:48]) + bytes(16) + bytes(head[64:]) + data
    if algorithm == seal.GMAC_ID:
        nonce = (7).to_bytes(8, "little") + bytes(4)  # Role bit 0: the client.
        expected = AESGCM(KEY).encrypt(nonce, b"", whole)
    else:
        cmac = CMAC(algorithms.AES(KEY))
        cmac.update(whole)
        expected = cmac.finalize()
    assert head[48:64] == expected


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(200_001)], ids=len)
def test_a_sealed_request_opens_and_reveals(data: bytes) -> None:
    sealer, head = seal.Sealer(_keys()), bytearray(_message())
    text = memoryview(bytearray(data))
    first, nonce = sealer.seal(head, text, text)
    frame = bytearray(first + bytes(text))
    assert _open(frame, GCM) == bytes(head) + data
    sealer.reveal(nonce, len(head), text)
    assert text == data


def test_no_nonce_comes_twice() -> None:
    sealer = seal.Sealer(_keys())
    nonces = {sealer.seal(bytearray(64), b"", memoryview(b""))[1] for _ in range(1000)}
    assert len(nonces) == 1000
    assert {len(nonce) for nonce in nonces} == {12}


def test_keys_are_not_shown() -> None:
    assert KEY.hex() not in repr(_keys())
    assert repr(KEY) not in repr(_keys())
