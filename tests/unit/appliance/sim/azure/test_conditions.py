"""Ranges and conditional headers are parsed and decided as the Blob service documents them."""

import pytest

from appliance.sim.azure.conditions import check_conditions, page_range, window
from appliance.sim.call import Refusal
from tests.support.simcalls import call

ETAG = '"0x8D1"'
MODIFIED = 1_700_000_000.5
BEFORE, AT, AFTER = (
    "Tue, 14 Nov 2023 22:13:19 GMT",
    "Tue, 14 Nov 2023 22:13:20 GMT",
    "Tue, 14 Nov 2023 22:13:21 GMT",
)


def _decided(headers: dict[str, str], method: str = "PUT") -> int:
    try:
        check_conditions(call(method, "/x", headers), etag=ETAG, modified=MODIFIED, sequence=5)
    except Refusal as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"If-Match": ETAG}, 200),
        ({"If-Match": f'"other", {ETAG}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": ETAG}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": AT}, 412),
        ({"If-Unmodified-Since": AT}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 400),
        ({"x-ms-if-sequence-number-le": "5"}, 200),
        ({"x-ms-if-sequence-number-le": "4"}, 412),
        ({"x-ms-if-sequence-number-lt": "6"}, 200),
        ({"x-ms-if-sequence-number-lt": "5"}, 412),
        ({"x-ms-if-sequence-number-eq": "5"}, 200),
        ({"x-ms-if-sequence-number-eq": "6"}, 412),
        ({"x-ms-if-sequence-number-eq": "five"}, 400),
        ({"x-ms-if-tags": "a=b"}, 400),
    ],
    ids=str,
)
def test_condition_on_a_write(headers: dict[str, str], status: int) -> None:
    assert _decided(headers) == status


def test_read_that_is_up_to_date_is_not_modified() -> None:
    assert _decided({"If-None-Match": ETAG}, "GET") == 304


@pytest.mark.parametrize(
    ("text", "expected"),
    [("bytes=0-511", (0, 512)), ("bytes=512-2047", (512, 1536))],
)
def test_page_range_is_taken(text: str, expected: tuple[int, int]) -> None:
    assert page_range(call("PUT", "/x", {"x-ms-range": text}), 2048) == expected


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 400),
        ("bytes=a-b", 400),
        ("0-511", 400),
        ("bytes=511-0", 400),
        ("bytes=0-", 416),
        ("bytes=1-512", 416),
        ("bytes=0-510", 416),
        ("bytes=2048-2559", 416),
        ("bytes=1536-2559", 416),
    ],
)
def test_page_range_is_refused(text: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        page_range(call("PUT", "/x", {"x-ms-range": text} if text else {}), 2048)
    assert caught.value.status == status


def test_azures_own_range_header_wins() -> None:
    headers = {"Range": "bytes=0-511", "x-ms-range": "bytes=512-1023"}
    assert page_range(call("PUT", "/x", headers), 2048) == (512, 512)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", (0, 1000)), ("bytes=10-", (10, 990)), ("bytes=990-2000", (990, 10))],
    ids=["whole", "open", "beyond-the-end"],
)
def test_read_window_is_cut_to_the_object(text: str, expected: tuple[int, int]) -> None:
    headers = {"Range": text} if text else {}
    assert window(call("GET", "/x", headers), 1000) == expected


def test_read_beyond_the_end_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        window(call("GET", "/x", {"Range": "bytes=1000-1001"}), 1000)
    assert (caught.value.status, caught.value.code) == (416, "InvalidRange")
