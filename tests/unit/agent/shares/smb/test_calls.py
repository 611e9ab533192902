"""Metadata answers are parsed as the documents say, and a lying server gets no further than a wire error."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smbprotocol.structure import BytesField

from agent.shares.base import FileIdentity
from agent.shares.smb import calls
from agent.shares.smb.translate import WIRE_ERRORS

IN_1970 = 116_444_736_000_000_000


class FakeOpen:
    """An open file, as far as the calls look."""

    file_id = b"f" * 16


class FakeLink:
    """A link whose server answers every request with the same body."""

    def __init__(self, body: bytes) -> None:
        self.data = BytesField()
        self.data.set_value(body)
        self.asked: list[Any] = []

    def ask(self, message: Any) -> dict[str, BytesField]:
        self.asked.append(message)
        return {"data": self.data}


def _info(data: bytes) -> bytes:
    """A QUERY_INFO answer ([MS-SMB2] 2.2.38)."""
    return struct.pack("<HHI", 9, 72, len(data)) + data


def _ioctl(data: bytes) -> bytes:
    """An IOCTL answer ([MS-SMB2] 2.2.32)."""
    head = struct.pack("<HHI16sIIIIII", 49, 0, 0x940CF, b"f" * 16, 112, 0, 112, len(data), 0, 0)
    return head + data


def _all_information(*, size: int, written: int, changed: int, number: int) -> bytes:
    """FileAllInformation ([MS-FSCC] 2.4.2), with a name behind it."""
    basic = struct.pack("<QQQQII", 1, 2, written, changed, 0x20, 0)
    standard = struct.pack("<QQIBBH", 3, size, 1, 0, 0, 0)
    rest = struct.pack("<QIIQIII", number, 0, 0, 0, 0, 0, 10) + "a.raw".encode("utf-16-le")
    return basic + standard + rest


def test_identity_has_sizes_and_times_in_nanoseconds() -> None:
    data = _all_information(size=77, written=IN_1970 + 5, changed=IN_1970 - 1, number=2**63)
    link = FakeLink(_info(data))
    identity = calls.query_identity(link, FakeOpen())  # type: ignore[arg-type]
    assert identity == FileIdentity(77, 500, -100, 2**63)


def test_free_space_is_what_the_caller_may_use() -> None:
    link = FakeLink(_info(struct.pack("<QQQII", 1000, 30, 500, 8, 512)))
    assert calls.free_space(link, FakeOpen()) == 30 * 8 * 512  # type: ignore[arg-type]


def test_ranges_are_pairs_and_a_torn_one_is_dropped() -> None:
    link = FakeLink(_ioctl(struct.pack("<qqqq", 0, 4096, 8192, 1) + b"torn"))
    ranges = calls.allocated_ranges(link, FakeOpen(), 0, 10_000)  # type: ignore[arg-type]
    assert ranges == [(0, 4096), (8192, 1)]
    assert link.asked[0]["buffer"].get_value() == struct.pack("<qq", 0, 10_000)


@pytest.mark.parametrize(
    "call",
    [
        calls.query_identity,
        calls.free_space,
        lambda link, handle: calls.allocated_ranges(link, handle, 0, 4096),
    ],
    ids=["identity", "free space", "ranges"],
)
@given(body=st.binary(max_size=200))
def test_any_body_is_an_answer_or_a_wire_error(call: Any, body: bytes) -> None:
    try:
        call(FakeLink(body), FakeOpen())
    except WIRE_ERRORS:
        return
