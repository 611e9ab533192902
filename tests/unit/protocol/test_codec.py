"""Hostile bytes: each fault has its own error, nothing is read leniently, large values cannot blow up."""

import tracemalloc
from typing import Annotated, Any

import msgspec
import pytest

from protocol.codec import MAX_DEPTH, SMALL, decode, decode_plain, encode
from protocol.errors import BadField, DuplicateKey, FrameError, Malformed, Oversized, TooDeep
from protocol.messages import Layout


class Point(Layout, frozen=True, kw_only=True):
    """A sample layout."""

    x: int
    raw: bytes = b""
    tags: Annotated[tuple[str, ...], msgspec.Meta(max_length=4)] = ()


def _map(*pairs: tuple[Any, Any]) -> bytes:
    return bytes([0x80 | len(pairs)]) + b"".join(encode(k) + encode(v) for k, v in pairs)


CASES: list[tuple[str, bytes, type[FrameError]]] = [
    ("nothing", b"", Malformed),
    ("reserved byte", b"\xc1", Malformed),
    ("cut", encode(Point(x=70_000))[:-1], Malformed),
    ("something behind it", encode(Point(x=1)) + b"\xc0", Malformed),
    ("bad text", b"\x81\xa1\xff\x01", Malformed),
    ("extension", b"\x81\xa1x\xd4\x01\x00", Malformed),
    ("timestamp", b"\x81\xa1x\xd6\xff\x00\x00\x00\x00", Malformed),
    ("number as key", _map((1, 1)), Malformed),
    ("array of 4 G", b"\xdd\xff\xff\xff\xff", Malformed),
    ("map of 4 G", b"\xdf\xff\xff\xff\xff", Malformed),
    ("bytes of 4 G", b"\xc6\xff\xff\xff\xff", Malformed),
    ("key twice", _map(("x", 1), ("x", 2)), DuplicateKey),
    (
        "key twice below",
        _map(("x", {}), ("tags", []))[:-1] + _map(("a", 1), ("a", 1)),
        DuplicateKey,
    ),
    ("too deep", b"\x91" * (MAX_DEPTH + 1) + b"\xc0", TooDeep),
    ("far too deep", b"\x91" * 5000 + b"\xc0", TooDeep),
    ("deep maps", b"\x81\xa1a" * 5000 + b"\xc0", TooDeep),
    ("missing", _map(("raw", b"")), BadField),
    ("unknown", _map(("x", 1), ("y", 1)), BadField),
    ("text as bytes", _map(("x", 1), ("raw", "AAAA")), BadField),
    ("bytes as text", _map(("x", 1), ("tags", [b"a"])), BadField),
    ("truth as number", _map(("x", True)), BadField),
    ("fraction as number", _map(("x", 1.0)), BadField),
    ("too many", _map(("x", 1), ("tags", ["a"] * 5)), BadField),
    ("an array", encode([1]), BadField),
    ("too large", bytes(2000), Oversized),
]


@pytest.mark.parametrize(("data", "error"), [row[1:] for row in CASES], ids=[r[0] for r in CASES])
def test_each_fault_has_its_own_error(data: bytes, error: type[FrameError]) -> None:
    with pytest.raises(FrameError) as caught:
        decode(data, Point, limit=1000 if error is Oversized else 10**6)
    assert type(caught.value) is error


def test_depth_16_is_allowed() -> None:
    assert decode_plain(b"\x91" * MAX_DEPTH + b"\xc0", limit=100)


def test_size_is_judged_before_anything_else() -> None:
    with pytest.raises(Oversized):
        decode(b"\xc1" * 11, Point, limit=10)


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * (SMALL + 9) + b"\xc0",
        _map(("x", 1), ("x", 2), ("raw", bytes(SMALL))),
        _map(("x", 1), ("raw", bytes(SMALL)), ("x", 2)),
    ],
    ids=["depth", "twice, early", "twice, late"],
)
def test_large_values_are_judged_like_small_ones(data: bytes) -> None:
    with pytest.raises((TooDeep, DuplicateKey)):
        decode(data, Point, limit=10**6)


def test_a_large_good_value_is_read() -> None:
    point = Point(x=1, raw=bytes(SMALL + 1))
    assert decode(encode(point), Point, limit=10**6) == point


def test_a_megabyte_of_empty_lists_does_not_become_sixty() -> None:
    bomb = b"\xdd" + (10**6).to_bytes(4) + b"\x90" * 10**6
    tracemalloc.start()
    with pytest.raises(BadField):
        decode(bomb, Point, limit=10**7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 10**6


def test_fields_keep_their_order_and_defaults_are_left_out() -> None:
    assert encode(Point(x=1, raw=b"a")) == _map(("x", 1), ("raw", b"a"))
