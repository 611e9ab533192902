"""The way in steps: what URLs lead to, what heads say."""

import pytest

from appliance.doctor.net import Place, http_date, place
from appliance.doctor.net import _head as head
from appliance.doctor.net import _one_of_each_family as few


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://relay.example", Place("relay.example", 443, tls=True)),
        ("wss://relay.example:8443/x", Place("relay.example", 8443, tls=True)),
        ("http://127.0.0.1:8480", Place("127.0.0.1", 8480, tls=False)),
        ("ws://relay.example", Place("relay.example", 80, tls=False)),
        ("https://[::1]:9", Place("::1", 9, tls=True)),
    ],
)
def test_a_url_leads_to_a_place(url: str, expected: Place) -> None:
    assert place(url) == expected


def test_an_ipv6_place_is_written_in_brackets() -> None:
    assert str(Place("::1", 9, tls=False)) == "[::1]:9"


def test_a_head_tells_status_and_date() -> None:
    shown = head("HTTP/1.1 407 Who?\r\nServer: x\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n")
    assert (shown.status, shown.date) == (407, 784111777.0)


@pytest.mark.parametrize(
    "text", ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "\r\n\r\n", "HTTP/1.1 abc x\r\n\r\n"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller names it
        head(text)


@pytest.mark.parametrize("text", ["", "yesterday", "99"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert http_date(text) is None


@pytest.mark.parametrize(
    ("addresses", "tried"),
    [
        (["fd::1", "10.0.0.1", "fd::2", "10.0.0.2"], ["fd::1", "10.0.0.1"]),
        (["10.0.0.1", "fd::1"], ["10.0.0.1", "fd::1"]),
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]),
        ([], []),
    ],
)
def test_each_family_gets_one_try_in_the_resolvers_order(
    addresses: list[str], tried: list[str]
) -> None:
    assert few(addresses) == tried
