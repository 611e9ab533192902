"""READ, WRITE and FLUSH as bytes: requests as smbprotocol packs them, answers that lie are refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smbprotocol.header import SMB2HeaderRequest
from smbprotocol.open import SMB2FlushRequest, SMB2ReadRequest, SMB2WriteRequest

from agent.shares.smb import wire
from agent.shares.smb.seal import Tampered
from imaging.units import KiB, MiB

FILE_ID = bytes(range(16))
OFFSETS = st.integers(0, 2**63)
LENGTHS = st.integers(1, 8 * MiB)


def _head(ask: wire.Ask, **changes: int) -> bytes:
    values = {"message_id": 77, "session_id": 0x1122, "tree_id": 5, **changes}
    return bytes(wire.build_head(ask, is_signed=False, is_multi=True, **values))


def _theirs(message: object, charge: int) -> bytes:
    header = SMB2HeaderRequest()
    header["credit_charge"] = header["credit_request"] = charge
    header["command"] = message.COMMAND  # type: ignore[attr-defined]
    header["message_id"], header["session_id"], header["tree_id"] = 77, 0x1122, 5
    header["data"] = message
    return bytes(header.pack())


@given(OFFSETS, LENGTHS)
def test_a_read_is_what_smbprotocol_packs(offset: int, length: int) -> None:
    theirs = SMB2ReadRequest()
    theirs["padding"] = bytes([wire.READ_HEAD])
    theirs["length"], theirs["offset"], theirs["file_id"] = length, offset, FILE_ID
    ask = wire.ask_read(FILE_ID, offset, length)
    assert _head(ask) == _theirs(theirs, -(-length // (64 * KiB)))


@given(OFFSETS, st.binary(min_size=1, max_size=200_000))
def test_a_write_is_what_smbprotocol_packs(offset: int, data: bytes) -> None:
    theirs = SMB2WriteRequest()
    theirs["offset"], theirs["file_id"], theirs["buffer"] = offset, FILE_ID, data
    ask = wire.ask_write(FILE_ID, offset, len(data))
    assert _head(ask) + data == _theirs(theirs, ask.charge)
    assert len(ask.body) == wire.WRITE_BODY


def test_a_flush_is_what_smbprotocol_packs() -> None:
    theirs = SMB2FlushRequest()
    theirs["file_id"] = FILE_ID
    assert _head(wire.ask_flush(FILE_ID)) == _theirs(theirs, 1)


def test_dialects_without_large_requests_have_no_charge() -> None:
    ask = wire.ask_read(FILE_ID, 0, MiB)
    old = wire.build_head(
        ask, message_id=1, session_id=2, tree_id=3, is_signed=True, is_multi=False
    )
    assert struct.unpack_from("<H", old, 6) == (0,)
    assert struct.unpack_from("<I", old, 16) == (8,)


# --- answers --------------------------------------------------------------------------------------


def _read_answer(data: bytes, *, offset: int = 80, length: int | None = None) -> memoryview:
    size = len(data) if length is None else length
    return memoryview(bytes(64) + struct.pack("<HBBIII", 17, offset, 0, size, 0, 0) + data)


def test_the_data_of_a_read_are_found() -> None:
    assert wire.parse_read(_read_answer(b"hello"), asked=5) == b"hello"
    assert wire.parse_read(_read_answer(b"...hello", offset=83, length=5), asked=9) == b"hello"


@pytest.mark.parametrize(
    "message",
    [
        memoryview(bytes(70)),
        _read_answer(b""),
        _read_answer(b"x" * 65),
        _read_answer(b"x", length=64),
        _read_answer(b"x" * 64, offset=0),
        _read_answer(b"x" * 64, offset=79),
        _read_answer(b"x" * 64, offset=200),
        _read_answer(b"x" * 64, length=0xFFFFFFFF),
    ],
    ids=["cut", "nothing", "too much", "less than said", "offset 0", "in head", "behind", "4 GiB"],
)
def test_lengths_and_offsets_of_a_read_are_not_trusted(message: memoryview) -> None:
    with pytest.raises(Tampered):
        wire.parse_read(message, asked=64)
    assert len(message) < 80 or not wire.is_usual_read(message, len(message), 64)


@given(st.binary(min_size=80, max_size=120), st.integers(0, 100))
def test_whatever_counts_as_usual_is_parsed_to_the_same_bytes(junk: bytes, asked: int) -> None:
    message = memoryview(junk)
    if wire.is_usual_read(message, len(message), asked):
        assert wire.parse_read(message, asked=asked) == junk[80:]


@pytest.mark.parametrize(("count", "good"), [(0, False), (1, True), (5, True), (6, False)])
def test_the_count_of_a_write_is_not_trusted(count: int, good: bool) -> None:
    message = memoryview(bytes(64) + struct.pack("<HHIIHH", 17, 0, count, 0, 0, 0))
    if good:
        assert wire.parse_write(message, asked=5) == count
    else:
        with pytest.raises(Tampered):
            wire.parse_write(message, asked=5)


def test_a_cut_answer_to_a_write_is_refused() -> None:
    with pytest.raises(Tampered):
        wire.parse_write(memoryview(bytes(64 + 15)), asked=5)
