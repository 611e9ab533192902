"""Shared Key: the string to sign is the documented one, and each signed part is really checked."""

import pytest

from appliance.sim.azure import sharedkey
from appliance.sim.azure.sas import sign
from appliance.sim.call import Call, Refusal
from tests.support.simcalls import call

KEY = "AAECAwQFBgcICQoLDA0ODw=="
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
HEADERS = {
    "x-ms-date": DATE,
    "x-ms-version": "2021-12-02",
    "X-Ms-Page-Write": "update",
    "Range": "bytes=0-511",
    "If-Match": '"e"',
}
EXPECTED = (
    'PUT\n\n\n512\n\n\n\n\n"e"\n\n\nbytes=0-511\n'
    f"x-ms-date:{DATE}\nx-ms-page-write:update\nx-ms-version:2021-12-02\n"
    "/acc/acc/cont/a%20b\ncomp:page\ntimeout:30"
)
URL = "/acc/cont/a%20b?timeout=30&comp=page"


def _signed(signature: str, **changes: str) -> Call:
    headers = HEADERS | {"Authorization": f"SharedKey acc:{signature}", "Content-Length": "512"}
    return call("PUT", URL, headers | changes, bytes(512))


def test_string_to_sign_is_the_documented_one() -> None:
    assert sharedkey.string_to_sign(_signed(""), "acc") == EXPECTED


def test_right_signature_passes() -> None:
    sharedkey.verify(_signed(sign(KEY, EXPECTED)), "acc", KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"Range": "bytes=512-1023"},
        {"If-Match": '"f"'},
        {"x-ms-version": "2020-02-10"},
        {"x-ms-new": "1"},
        {"Content-Length": "1024"},
        {"Content-Type": "text/plain"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_change_after_signing_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        sharedkey.verify(_signed(sign(KEY, EXPECTED), **changes), "acc", KEY)
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationFailed")


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        ("SharedKeyLite acc:x", "SharedKeyLite is not simulated"),
        ("SharedKey other:x", "The account other"),
        ("SharedKey acc:x", "Server used following string to sign"),
    ],
    ids=["lite", "other-account", "wrong-signature"],
)
def test_wrong_authorization_is_explained(authorization: str, detail: str) -> None:
    with pytest.raises(Refusal) as caught:
        sharedkey.verify(_signed("", Authorization=authorization), "acc", KEY)
    assert detail in caught.value.detail


@pytest.mark.parametrize("skew", [-901.0, 901.0], ids=["too-new", "too-old"])
def test_date_out_of_the_window_is_refused(skew: float) -> None:
    late = _signed(sign(KEY, EXPECTED))
    late.now += skew
    with pytest.raises(Refusal) as caught:
        sharedkey.verify(late, "acc", KEY)
    assert "date" in caught.value.detail
