"""The official storage SDK drives the simulator: whatever it does on Azurite and Azure, it does here."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobClient,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)

from appliance.sim.azure import AzureSim
from tests.support.azurite import running_azurite
from tests.support.simazure import running_azure

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 64 * MIB
FAR = "2099-01-01T00:00:00Z"
DATA = random.Random(3).randbytes(2 * MIB)


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with running_azure() as sim:
        yield sim


@pytest.fixture
def service(sim: AzureSim) -> Iterator[BlobServiceClient]:
    credential = {"account_name": sim.account, "account_key": sim.key}
    with BlobServiceClient(sim.blob_url, credential=credential, retry_total=0) as service:
        yield service


@pytest.fixture
def blob(service: BlobServiceClient) -> BlobClient:
    client = service.create_container("images").get_blob_client("golden image/disk one.vhd")
    client.create_page_blob(SIZE, metadata={"origin": "abc"})
    return client


def _ranges(blob: BlobClient, **options: Any) -> list[tuple[int, int]]:
    return [(found.start, found.end + 1) for found in blob.list_page_ranges(**options)]


def _failed(action: Any, *args: Any, **options: Any) -> tuple[int | None, str]:
    with pytest.raises(HttpResponseError) as caught:
        action(*args, **options)
    code = caught.value.error_code
    return caught.value.status_code, str(getattr(code, "value", code))


def _story(blob: BlobClient) -> dict[str, Any]:
    """Do what an uploader does and return everything that it can see."""
    blob.create_page_blob(8 * MIB, metadata={"origin": "abc"})
    blob.upload_page(DATA, 4 * MIB, len(DATA))
    blob.upload_page(DATA[:512], 0, 512)
    blob.clear_page(5 * MIB, 512)
    blob.set_blob_metadata({"origin": "def"})
    found = blob.get_blob_properties()
    return {
        "size": found.size,
        "type": found.blob_type,
        "metadata": found.metadata,
        "sequence": found.page_blob_sequence_number,
        "ranges": _ranges(blob),
        "part": _ranges(blob, offset=4 * MIB + 512, length=512),
        "bytes": blob.download_blob().readall(),
        "range": blob.download_blob(4 * MIB, 1000).readall(),
    }


def test_simulator_and_azurite_tell_the_same_story(
    service: BlobServiceClient, tmp_path: Path
) -> None:
    here = _story(service.create_container("story").get_blob_client("disk.vhd"))
    with running_azurite(tmp_path) as azurite:
        credential = {"account_name": azurite.account, "account_key": azurite.key}
        with BlobServiceClient(azurite.blob_url, credential=credential) as other:
            there = _story(other.create_container("story").get_blob_client("disk.vhd"))
    assert here == there


def test_md5_validation_goes_both_ways(blob: BlobClient) -> None:
    answered = blob.upload_page(DATA, 0, len(DATA), validate_content="md5")
    assert answered["content_md5"] is not None
    assert blob.download_blob(0, len(DATA), validate_content="md5").readall() == DATA


def test_crc64_validation_of_a_write(blob: BlobClient) -> None:
    pytest.importorskip("azure.storage.extensions.checksums")
    answered = blob.upload_page(DATA, 0, len(DATA), validate_content="crc64")
    assert answered["content_crc64"] is not None
    assert blob.download_blob(0, len(DATA)).readall() == DATA


def test_range_list_comes_in_pages(blob: BlobClient) -> None:
    for number in range(7):
        blob.upload_page(DATA[:512], number * MIB, 512)
    expected = [(number * MIB, number * MIB + 512) for number in range(7)]
    pages = list(blob.list_page_ranges(results_per_page=3).by_page())
    assert _ranges(blob, results_per_page=3) == expected
    assert len(list(pages)) == 3


def test_conditions_hold(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag
    blob.upload_page(DATA[:512], 0, 512, etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError):
        blob.upload_page(
            DATA[:512], 0, 512, etag=etag, match_condition=MatchConditions.IfNotModified
        )
    with pytest.raises(ResourceExistsError):
        blob.create_page_blob(SIZE, match_condition=MatchConditions.IfMissing)


def test_sequence_number_and_size_change(blob: BlobClient) -> None:
    blob.set_sequence_number("update", 7)
    blob.set_sequence_number("increment")
    blob.resize_blob(2 * SIZE)
    found = blob.get_blob_properties()
    assert (found.page_blob_sequence_number, found.size) == (8, 2 * SIZE)
    refused = _failed(blob.upload_page, DATA[:512], 0, 512, if_sequence_number_lt=8)
    assert refused == (412, "SequenceNumberConditionNotMet")


def test_copy_inside_the_account(
    sim: AzureSim, service: BlobServiceClient, blob: BlobClient
) -> None:
    blob.upload_page(DATA, MIB, len(DATA))
    copy = service.get_blob_client("images", "copy.vhd")
    started = copy.start_copy_from_url(f"{blob.url}?{sim.make_sas('images', blob.blob_name)}")
    found = copy.get_blob_properties()
    assert (started["copy_status"], found.copy.status, found.copy.id) == (
        "success",
        "success",
        started["copy_id"],
    )
    assert found.copy.progress == f"{SIZE}/{SIZE}"
    assert (found.size, found.metadata) == (SIZE, {"origin": "abc"})
    assert _ranges(copy) == [(MIB, MIB + len(DATA))]
    assert copy.download_blob(MIB, len(DATA)).readall() == DATA


def test_slow_copy_is_pending_and_not_written_to() -> None:
    with running_azure(lro_seconds=3600.0) as sim:
        credential = {"account_name": sim.account, "account_key": sim.key}
        with BlobServiceClient(sim.blob_url, credential=credential, retry_total=0) as service:
            source = service.create_container("images").get_blob_client("source")
            source.create_page_blob(SIZE)
            copy = service.get_blob_client("images", "copy")
            copy.start_copy_from_url(source.url, metadata={"own": "tag"})
            found = copy.get_blob_properties()
            assert (found.copy.status, found.metadata) == ("pending", {"own": "tag"})
            assert _failed(copy.upload_page, DATA[:512], 0, 512) == (409, "PendingCopyOperation")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{blob}", (401, "CannotVerifyCopySource")),
        ("{blob}?sv=2021-12-02&sr=b&sp=r&se=2099-01-01&sig=forged", (403, "AuthenticationFailed")),
        ("{account}/images/none?{sas}", (404, "CannotVerifyCopySource")),
        ("https://other.blob.core.windows.net/images/x", (400, "FeatureNotSupported")),
    ],
    ids=["no-credential", "forged", "missing", "other-account"],
)
def test_copy_from_an_unreadable_source_is_refused(
    sim: AzureSim, blob: BlobClient, source: str, expected: tuple[int, str]
) -> None:
    sas = sim.make_sas("images", permissions="rw")
    url = source.format(blob=blob.url, account=sim.blob_url, sas=sas)
    with BlobClient.from_blob_url(f"{sim.blob_url}/images/copy?{sas}") as copy:
        assert _failed(copy.start_copy_from_url, url) == expected


def test_lists_show_what_is_there(service: BlobServiceClient, blob: BlobClient) -> None:
    assert [found.name for found in service.list_containers()] == ["images"]
    container = service.get_container_client("images")
    found = list(container.list_blobs(include=["metadata"]))
    assert [(entry.name, entry.size, entry.metadata) for entry in found] == [
        ("golden image/disk one.vhd", SIZE, {"origin": "abc"})
    ]
    blob.delete_blob()
    assert not blob.exists()
    assert list(container.list_blobs()) == []


def test_every_kind_of_sas_reaches_the_blob(sim: AzureSim, blob: BlobClient) -> None:
    name = blob.blob_name
    tokens = [
        generate_blob_sas(
            sim.account, "images", name, account_key=sim.key, permission="rw", expiry=FAR
        ),
        generate_container_sas(
            sim.account, "images", account_key=sim.key, permission="rw", expiry=FAR
        ),
        generate_account_sas(
            sim.account,
            sim.key,
            ResourceTypes(object=True),
            AccountSasPermissions(read=True, write=True),
            FAR,
        ),
        sim.make_sas("images", name),
        sim.make_sas("images"),
    ]
    for token in tokens:
        with BlobClient.from_blob_url(f"{blob.url}?{token}") as client:
            client.upload_page(DATA[:512], 0, 512)
            assert client.download_blob(0, 512).readall() == DATA[:512]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"permission": "r", "expiry": FAR}, (403, "AuthorizationPermissionMismatch")),
        ({"permission": "rw", "expiry": "2001-01-01T00:00:00Z"}, (403, "AuthenticationFailed")),
        (
            {"permission": "rw", "expiry": FAR, "start": "2098-01-01T00:00:00Z"},
            (403, "AuthenticationFailed"),
        ),
        (
            {"permission": "rw", "expiry": FAR, "protocol": "https"},
            (403, "AuthorizationProtocolMismatch"),
        ),
        (
            {"permission": "rw", "expiry": FAR, "ip": "10.0.0.1"},
            (403, "AuthorizationSourceIPMismatch"),
        ),
    ],
    ids=["read-only", "expired", "not-yet", "https-only", "other-address"],
)
def test_too_little_sas_is_refused(
    sim: AzureSim, blob: BlobClient, options: dict[str, str], expected: tuple[int, str]
) -> None:
    token = generate_blob_sas(sim.account, "images", blob.blob_name, account_key=sim.key, **options)
    with BlobClient.from_blob_url(f"{blob.url}?{token}") as client:
        assert _failed(client.upload_page, DATA[:512], 0, 512) == expected


def test_create_permission_alone_does_not_overwrite(sim: AzureSim, blob: BlobClient) -> None:
    token = sim.make_sas("images", permissions="c")
    with BlobClient.from_blob_url(f"{blob.url}?{token}") as client:
        assert _failed(client.create_page_blob, SIZE) == (403, "UnauthorizedBlobOverwrite")
    with BlobClient.from_blob_url(f"{blob.url}-new?{token}") as client:
        client.create_page_blob(SIZE)


def test_wrong_key_is_refused(sim: AzureSim, blob: BlobClient) -> None:
    credential = {"account_name": sim.account, "account_key": "AAAA"}
    with BlobClient.from_blob_url(blob.url, credential=credential) as client:
        assert _failed(client.upload_page, DATA[:512], 0, 512) == (403, "AuthenticationFailed")
