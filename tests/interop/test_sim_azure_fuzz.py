"""Odd requests with a right credential get a refusal or an answer, never a crash (500) of the simulator."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.sim.azure import AzureSim
from appliance.sim.azure.tokens import STORAGE
from tests.support.simazure import running_azure

pytestmark = pytest.mark.interop

WAIT_SECONDS = 30.0
ODD = st.one_of(
    st.sampled_from(
        ["", "0", "512", "-1", "²", "1e3", "bytes=0-511", "bytes=512-1023", "bytes=0-", "bytes=9-1", "*",
         "http://[", "http://sim/imageportsim/images/x", "Bearer x", "SharedKey a:b",
         "9" * 25, "bytes=" + "9" * 30 + "-", "true", "update", "clear", "max", "increment", "PageBlob",
         "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo", "AAAAAAAAAAA=", "é\x80", "a" * 300]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(
        ["x-ms-range", "Range", "x-ms-page-write", "x-ms-version", "x-ms-blob-type", "If-Match",
         "If-Modified-Since", "If-Unmodified-Since", "x-ms-if-sequence-number-le", "Content-MD5",
         "x-ms-content-crc64", "x-ms-blob-content-length", "x-ms-blob-sequence-number", "x-ms-meta-a",
         "x-ms-meta-", "x-ms-sequence-number-action", "x-ms-range-get-content-md5", "x-ms-date",
         "x-ms-client-request-id", "x-ms-copy-source", "Authorization", "x-ms-blob-content-type", "Expect"]
    ),
    ODD,
    max_size=4,
)  # fmt: skip
QUERY = st.dictionaries(
    st.sampled_from(["comp", "restype", "marker", "maxresults", "prefix", "st", "se", "sv", "sr", "si", "sig",
                     "ss", "srt", "sip", "snapshot", "api-version", "monitor"]),
    st.one_of(st.sampled_from(["page", "pagelist", "properties", "metadata", "list", "container", "account"]), ODD),
    max_size=3,
)  # fmt: skip
RIGHT: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"x-ms-page-write": "update", "x-ms-range": "bytes=0-511"}, {"comp": "page"}),
    ({"x-ms-page-write": "clear", "x-ms-range": "bytes=0-511"}, {"comp": "page"}),
    ({"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": "1048576"}, {}),
    ({}, {"comp": "pagelist"}),
    ({}, {"comp": "properties"}),
    ({}, {"comp": "list", "restype": "container"}),
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["location", "properties", "creationData", "createOption", "uploadSizeBytes",
                             "tags", "sku", "name", "access", "durationInSeconds", "fault", "action", "disk",
                             "offset", "machine"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Where to knock, each with its credential as query or header."""

    sim: AzureSim
    port: int
    urls: list[str]
    bearers: dict[str, str]


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with running_azure() as sim:
        yield _places(sim)
        # Whatever was asked, nothing is counted as still being answered.
        assert sim.stats.inflight == 0


def _places(sim: AzureSim) -> Places:
    sim.make_container("images")
    disk = sim.upload_disk("golden", 32 << 20).removeprefix(sim.url)
    arm = f"/subscriptions/{sim.subscription}/resourceGroups/{sim.resource_group}"
    disks = f"{arm}/providers/Microsoft.Compute/disks"
    storage = f"/{sim.account}"
    token = f"/{sim.identity.tenant}/oauth2/v2.0/token"
    controls = [f"/sim/{name}" for name in ("stats", "token", "flip", "attach", "nothing")]
    urls = [
        disk,
        f"{storage}/images/x",
        f"{storage}/images",
        f"{storage}/",
        storage,
        token,
        "/",
        "/what",
    ]
    urls += [f"{storage}/images/x?{sim.make_sas('images', permissions='rwcdl')}", *controls]
    urls += [
        arm,
        disks,
        f"{disks}/golden",
        f"{disks}/golden/beginGetAccess",
        f"{disks}/golden/endGetAccess",
    ]
    bearers = {url: sim.token() for url in urls if url.startswith(arm)}
    bearers |= {
        url: sim.token(STORAGE) for url in urls if url.startswith(storage) and "?" not in url
    }
    return Places(sim, int(sim.url.rpartition(":")[2]), urls, bearers)


def _restore(sim: AzureSim) -> None:
    """Put back what an earlier example may have deleted."""
    sim.make_container("images")
    if "images/x" not in sim.vault.blobs:
        sim.vault.put_blob("images/x", sim.vault.new_blob(1 << 20, sim.clock()))


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _status(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as link:
        link.sendall(request)
        with link.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=400)
@given(data=st.data(), method=st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE", "PATCH"]),
       headers=HEADERS, query=QUERY, body=st.one_of(st.just(b""), st.just(bytes(512)), JSON))  # fmt: skip
def test_odd_request_is_no_crash(
    places: Places,
    data: st.DataObject,
    method: str,
    headers: dict[str, str],
    query: dict[str, str],
    body: Any,
) -> None:
    url = data.draw(st.sampled_from(places.urls))
    _restore(places.sim)
    base_headers, base_query = data.draw(st.sampled_from(RIGHT))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    wanted = base_query | query
    extra = "&".join(f"{name}={_quoted(value)}" for name, value in wanted.items())
    if url.startswith("/subscriptions") and "api-version" not in query:
        extra += "&api-version=2024-03-02"
    lines = [
        f"{method} {url}{'&' if '?' in url else '?'}{extra} HTTP/1.1",
        "Host: sim",
        "Connection: close",
    ]
    sent = {"x-ms-version": "2021-12-02", "Content-Length": str(len(raw))} | base_headers | headers
    if url in places.bearers:
        sent["Authorization"] = f"Bearer {places.bearers[url]}"
    lines += [f"{name}: {value}" for name, value in sent.items()]
    request = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + raw
    assert _status(places.port, request) not in (500, 502)
