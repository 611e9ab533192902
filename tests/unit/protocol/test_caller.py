"""A caller's request is its own: method, path, body, idempotency key and time are signed."""

from typing import Any

import pytest

from protocol.caller import MAX_SKEW_MS, check_request, sign_request
from protocol.errors import BadSignature, Malformed
from tests.support import protocol_world as w

CALLER = w.key_of("caller")
HEADERS = sign_request(
    CALLER, method="post", path="/v1/jobs?x=1", body=b"{}", idempotency_key="k-1", now_ms=w.T0
)


def _check(headers: dict[str, str] = HEADERS, **changes: Any) -> None:
    request: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/jobs?x=1",
        "body": b"{}",
        "now_ms": w.T0,
    }
    check_request(CALLER.public, headers, **(request | changes))


def test_a_signed_request_counts_whatever_the_case_of_its_headers() -> None:
    _check()
    _check({name.lower(): value for name, value in HEADERS.items()})


@pytest.mark.parametrize("skew", [-MAX_SKEW_MS, MAX_SKEW_MS])
def test_it_counts_for_five_minutes_around(skew: int) -> None:
    _check(now_ms=w.T0 + skew)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "DELETE"},
        {"path": "/v1/jobs?x=2"},
        {"body": b"{ }"},
        {"now_ms": w.T0 + MAX_SKEW_MS + 1},
        {"now_ms": w.T0 - MAX_SKEW_MS - 1},
        {"headers": HEADERS | {"Idempotency-Key": "k-2"}},
        {"headers": HEADERS | {"Imageport-Time": str(w.T0 + 1)}},
    ],
    ids=["method", "path", "body", "too late", "too early", "key", "time"],
)
def test_nothing_of_it_can_be_exchanged(changes: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        _check(**changes)


@pytest.mark.parametrize(
    "headers",
    [{}, HEADERS | {"Imageport-Time": "now"}, HEADERS | {"Imageport-Signature": "?"}],
    ids=["none", "time", "signature"],
)
def test_unreadable_headers_are_malformed(headers: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        _check(headers)


def test_another_callers_key_does_not_fit() -> None:
    with pytest.raises(BadSignature):
        check_request(
            w.DEVICE.public, HEADERS, method="POST", path="/v1/jobs?x=1", body=b"{}", now_ms=w.T0
        )
