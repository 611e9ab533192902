"""What Azurite wrongly accepts, and what only Azure refuses, is refused here: each case by status and error code.

The requests are raw: no SDK stands between the case and the simulator.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from azure.storage.blob import BlobClient, BlobServiceClient, generate_blob_sas
from yarl import URL

from appliance.sim.azure import AzureSim
from tests.support.azurite import running_azurite

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 32 * MIB
VERSION = {"x-ms-version": "2021-12-02"}
PAGE = bytes(512)
ZERO_MD5, ZERO_CRC = "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAA="


@dataclass(frozen=True)
class Case:
    """One request and the refusal that it must get."""

    name: str
    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = PAGE
    query: str = "&comp=page"
    method: str = "PUT"
    offset: int = 0
    permissions: str = "rw"
    ttl: float = 3600.0
    sas: bool = True

    def wire_headers(self) -> dict[str, str]:
        """Return the headers of a page write, changed as the case says ("" takes one away)."""
        last = self.offset + len(self.body) - 1
        usual = {"x-ms-page-write": "update", "x-ms-range": f"bytes={self.offset}-{last}"}
        usual = usual if "comp=page" in self.query and self.method == "PUT" else {}
        wanted = VERSION | usual | self.headers
        return {name: value for name, value in wanted.items() if value}


TOO_LAX_IN_AZURITE = [
    Case("wrong-md5", 400, "Md5Mismatch", {"Content-MD5": ZERO_MD5}),
    Case("write-of-4-mib-and-a-page", 413, "RequestBodyTooLarge", body=bytes(4 * MIB + 512)),
    Case("write-of-8-mib", 413, "RequestBodyTooLarge", body=bytes(8 * MIB)),
]
ANYWHERE = [
    *TOO_LAX_IN_AZURITE,
    Case("wrong-crc64", 400, "Crc64Mismatch", {"x-ms-content-crc64": "AAAAAAAAAAE="}),
    Case("malformed-md5", 400, "InvalidMd5", {"Content-MD5": "what"}),
    Case(
        "both-checksums",
        400,
        "InvalidHeaderValue",
        {"Content-MD5": ZERO_MD5, "x-ms-content-crc64": ZERO_CRC},
    ),
    Case("unaligned-offset", 416, "InvalidPageRange", offset=1),
    Case("unaligned-length", 416, "InvalidPageRange", body=bytes(511)),
    Case("beyond-the-end", 416, "InvalidPageRange", offset=SIZE + MIB),
    Case("range-and-body-differ", 416, "InvalidPageRange", {"x-ms-range": "bytes=0-1023"}),
    Case("no-range", 400, "MissingRequiredHeader", {"x-ms-range": ""}),
    Case("no-kind-of-write", 400, "MissingRequiredHeader", {"x-ms-page-write": ""}),
    Case("structured-body", 501, "FeatureNotSupported", {"x-ms-structured-body": "XSM/1.0"}),
    Case(
        "read-beyond-the-end",
        416,
        "InvalidRange",
        {"Range": f"bytes={2 * SIZE}-{2 * SIZE + 511}"},
        method="GET",
        query="",
        body=b"",
    ),
    Case(
        "hash-of-a-long-read",
        400,
        "InvalidHeaderValue",
        {"Range": f"bytes=0-{8 * MIB - 1}", "x-ms-range-get-content-md5": "true"},
        method="GET",
        query="",
        body=b"",
    ),
    Case(
        "range-difference",
        501,
        "FeatureNotSupported",
        method="GET",
        body=b"",
        query="&comp=pagelist&prevsnapshot=2020-01-01T00:00:00.0000000Z",
    ),
]
ACCOUNT_ONLY = [
    Case("read-only-sas", 403, "AuthorizationPermissionMismatch", permissions="r"),
    Case(
        "write-only-sas-reads",
        403,
        "AuthorizationPermissionMismatch",
        permissions="w",
        method="GET",
        query="",
        body=b"",
    ),
    Case("expired-sas", 403, "AuthenticationFailed", ttl=-1.0),
    Case("no-credential", 401, "NoAuthenticationInformation", sas=False),
    Case(
        "sas-may-not-delete",
        403,
        "AuthorizationPermissionMismatch",
        method="DELETE",
        query="",
        body=b"",
    ),
    Case("etag-differs", 412, "ConditionNotMet", {"If-Match": '"other"'}),
    Case("block-blob", 501, "FeatureNotSupported", {"x-ms-blob-type": "BlockBlob"}, query=""),
    Case(
        "odd-length",
        400,
        "InvalidHeaderValue",
        query="",
        body=b"",
        headers={"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": "1000"},
    ),
    Case(
        "beyond-8-tib",
        400,
        "InvalidHeaderValue",
        query="",
        body=b"",
        headers={"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str((8 << 40) + 512)},
    ),
    Case(
        "bad-metadata-name",
        400,
        "InvalidMetadata",
        {"x-ms-meta-a-b": "c"},
        query="&comp=metadata",
        body=b"",
    ),
]
DISK_ONLY = [
    Case(
        "create",
        409,
        "OperationNotAllowedOnManagedDisk",
        query="",
        body=b"",
        headers={"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(SIZE)},
    ),
    Case("delete", 409, "OperationNotAllowedOnManagedDisk", method="DELETE", query="", body=b""),
    Case(
        "whole-blob-md5",
        409,
        "OperationNotAllowedOnManagedDisk",
        query="&comp=properties",
        body=b"",
        headers={"x-ms-blob-content-md5": ZERO_MD5},
    ),
    Case(
        "metadata",
        409,
        "OperationNotAllowedOnManagedDisk",
        {"x-ms-meta-a": "b"},
        query="&comp=metadata",
        body=b"",
    ),
    Case("if-match", 400, "InvalidHeaderValue", {"If-Match": "*"}),
    Case("if-none-match", 400, "InvalidHeaderValue", {"If-None-Match": '"x"'}),
    Case("sequence-number", 400, "InvalidHeaderValue", {"x-ms-if-sequence-number-eq": "0"}),
    Case("no-sas", 403, "AuthenticationFailed", sas=False),
    Case("shared-key", 403, "AuthenticationFailed", {"Authorization": "SharedKey x:y"}),
]


@pytest.fixture
async def sim() -> AsyncIterator[AzureSim]:
    async with AzureSim() as sim:
        yield sim


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def _sent(http: aiohttp.ClientSession, url: str, case: Case) -> tuple[int, str, str]:
    """Return status, code of the header and code of the body."""
    wanted = URL(url + case.query, encoded=True)
    async with http.request(
        case.method, wanted, data=BytesIO(case.body), headers=case.wire_headers()
    ) as answer:
        text = await answer.text()
        inside = text.partition("<Code>")[2].partition("</Code>")[0]
        return answer.status, answer.headers.get("x-ms-error-code", ""), inside


async def _blob_url(sim: AzureSim, http: aiohttp.ClientSession, case: Case) -> str:
    sim.make_container("images")
    create = VERSION | {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(SIZE)}
    url = f"{sim.blob_url}/images/x?"
    sas = sim.make_sas("images", permissions="c")
    async with http.put(URL(url + sas, encoded=True), headers=create) as answer:
        assert answer.status == 201
    return url + (
        sim.make_sas("images", "x", permissions=case.permissions, ttl=case.ttl) if case.sas else ""
    )


@pytest.mark.parametrize("case", [*ANYWHERE, *ACCOUNT_ONLY], ids=lambda case: case.name)
async def test_account_refuses(sim: AzureSim, http: aiohttp.ClientSession, case: Case) -> None:
    url = await _blob_url(sim, http, case)
    assert await _sent(http, url, case) == (case.status, case.code, case.code)
    assert sim.blob("images", "x").file.pages.total() == 0


@pytest.mark.parametrize("case", [*ANYWHERE, *DISK_ONLY], ids=lambda case: case.name)
async def test_managed_disk_refuses(sim: AzureSim, http: aiohttp.ClientSession, case: Case) -> None:
    url = sim.upload_disk("golden", SIZE)
    url = url if case.sas else url.partition("?")[0] + "?"
    assert await _sent(http, url, case) == (case.status, case.code, case.code)
    assert sim.disk_blob("golden").file.pages.total() == 0


@pytest.mark.parametrize("case", TOO_LAX_IN_AZURITE, ids=lambda case: case.name)
async def test_azurite_still_accepts(
    http: aiohttp.ClientSession, tmp_path: Path, case: Case
) -> None:
    # If this turns red, Azurite has become strict: good news, and the facts must be told anew.
    with running_azurite(tmp_path) as azurite:
        credential = {"account_name": azurite.account, "account_key": azurite.key}
        with BlobServiceClient(azurite.blob_url, credential=credential) as service:
            blob: BlobClient = service.create_container("images").get_blob_client("x")
            blob.create_page_blob(SIZE)
            token = generate_blob_sas(
                azurite.account,
                "images",
                "x",
                account_key=azurite.key,
                permission="rw",
                expiry="2099-01-01",
            )
            assert (await _sent(http, f"{blob.url}?{token}", case))[0] == 201


async def test_head_names_the_refusal_in_its_header(
    sim: AzureSim, http: aiohttp.ClientSession
) -> None:
    sim.make_container("images")
    url = URL(f"{sim.blob_url}/images/none?{sim.make_sas('images')}", encoded=True)
    async with http.head(url) as answer:
        assert (answer.status, answer.headers["x-ms-error-code"]) == (404, "BlobNotFound")
        assert await answer.read() == b""


async def test_write_without_length_is_refused(sim: AzureSim, http: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield PAGE

    url = URL(f"{sim.upload_disk('golden', SIZE)}&comp=page", encoded=True)
    headers = VERSION | {"x-ms-page-write": "update", "x-ms-range": "bytes=0-511"}
    async with http.put(url, data=pieces(), headers=headers) as answer:
        assert (answer.status, answer.headers["x-ms-error-code"]) == (
            411,
            "MissingContentLengthHeader",
        )


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        (
            "/subscriptions/{sub}/resourceGroups/g/providers/Microsoft.Compute/disks/d?api-version=2024-03-02",
            {},
            (401, "AuthenticationFailed"),
        ),
        (
            "/subscriptions/{sub}/resourceGroups/g/providers/Microsoft.Compute/disks/d?api-version=2024-03-02",
            {"Authorization": "Bearer a.b.c"},
            (401, "InvalidAuthenticationToken"),
        ),
        (
            "/subscriptions/{sub}/resourceGroups/imageport/providers/Microsoft.Compute/disks/d",
            {"Authorization": "Bearer {token}"},
            (400, "MissingApiVersionParameter"),
        ),
        (
            "/subscriptions/other/resourceGroups/g/providers/Microsoft.Compute/disks/d?api-version=2024-03-02",
            {"Authorization": "Bearer {token}"},
            (404, "SubscriptionNotFound"),
        ),
        (
            "/subscriptions/{sub}/resourceGroups/g/providers/Microsoft.Compute/disks/d?api-version=2024-03-02",
            {"Authorization": "Bearer {token}"},
            (404, "ResourceGroupNotFound"),
        ),
        (
            "/subscriptions/{sub}/providers/Microsoft.Compute/virtualMachines?api-version=2024-03-02",
            {"Authorization": "Bearer {token}"},
            (404, "InvalidResourceType"),
        ),
    ],
    ids=[
        "no-token",
        "forged-token",
        "no-api-version",
        "other-subscription",
        "no-group",
        "not-simulated",
    ],
)
async def test_resource_manager_refuses(
    sim: AzureSim,
    http: aiohttp.ClientSession,
    path: str,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    url = sim.url + path.format(sub=sim.subscription)
    filled = {name: value.format(token=sim.token()) for name, value in headers.items()}
    async with http.get(url, headers=filled) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == expected
