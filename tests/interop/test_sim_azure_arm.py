"""azure-mgmt-compute and azure-identity drive the simulated disks: create, grant, upload, revoke, read, delete."""

import datetime
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import DiskUpdate
from azure.storage.blob import BlobClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.sim.azure import AzureSim
from tests.support.azurearm import access, compute_client, upload_disk
from tests.support.simazure import running_azure, vhd_footer

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 32 * MIB
GROUP = "imageport"


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with running_azure() as sim:
        yield sim


@pytest.fixture
def compute(sim: AzureSim) -> Iterator[ComputeManagementClient]:
    with compute_client(sim) as client:
        yield client


def _create(compute: ComputeManagementClient, name: str = "golden", **more: Any) -> Any:
    return compute.disks.begin_create_or_update(GROUP, name, upload_disk(SIZE, **more)).result()


def _grant(compute: ComputeManagementClient, kind: str, name: str = "golden") -> str:
    return str(compute.disks.begin_grant_access(GROUP, name, access(kind)).result().access_sas)


def _failed(action: Any, *args: Any, **options: Any) -> tuple[int | None, str]:
    with pytest.raises(HttpResponseError) as caught:
        action(*args, **options).result()
    error = caught.value.error
    return caught.value.status_code, error.code if error else ""


def _upload(url: str, footer: bytes) -> None:
    with BlobClient.from_blob_url(url) as blob:
        blob.upload_page(b"golden" + bytes(MIB - 6), 0, MIB)
        blob.upload_page(footer, SIZE, 512)


def test_whole_life_of_a_disk(compute: ComputeManagementClient) -> None:
    disk = _create(compute, tags={"imageport-origin": "abc"}, zones=["1"])
    assert (disk.disk_state, disk.provisioning_state) == ("ReadyToUpload", "Succeeded")
    assert (disk.disk_size_bytes, disk.os_type, disk.hyper_v_generation) == (SIZE, "Windows", "V2")
    assert (disk.tags, disk.zones) == ({"imageport-origin": "abc"}, ["1"])
    url = _grant(compute, "Write")
    assert compute.disks.get(GROUP, "golden").disk_state == "ActiveUpload"
    _upload(url, vhd_footer(SIZE))
    compute.disks.begin_revoke_access(GROUP, "golden").result()
    assert compute.disks.get(GROUP, "golden").disk_state == "Unattached"
    with BlobClient.from_blob_url(_grant(compute, "Read")) as blob:
        assert blob.download_blob(0, 8).readall() == b"golden\0\0"
        assert [(page.start, page.end) for page in blob.list_page_ranges()] == [
            (0, MIB - 1),
            (SIZE, SIZE + 511),
        ]
    compute.disks.begin_revoke_access(GROUP, "golden").result()
    compute.disks.begin_delete(GROUP, "golden").result()
    with pytest.raises(HttpResponseError, match="was not found"):
        compute.disks.get(GROUP, "golden")


def test_bad_footer_fails_the_revoke_by_the_services_words(
    compute: ComputeManagementClient,
) -> None:
    _create(compute)
    _upload(_grant(compute, "Write"), bytes(512))
    with pytest.raises(
        HttpResponseError, match="expected to have cookie value 'conectix'"
    ) as caught:
        compute.disks.begin_revoke_access(GROUP, "golden").result()
    assert caught.value.error is not None
    assert caught.value.error.code == "InvalidVhd"


def test_disk_being_written_is_not_deleted(compute: ComputeManagementClient) -> None:
    _create(compute)
    _grant(compute, "Write")
    assert _failed(compute.disks.begin_delete, GROUP, "golden") == (409, "OperationNotAllowed")


def test_revoked_url_is_dead(compute: ComputeManagementClient) -> None:
    _create(compute)
    url = _grant(compute, "Write")
    _upload(url, vhd_footer(SIZE))
    compute.disks.begin_revoke_access(GROUP, "golden").result()
    with BlobClient.from_blob_url(url) as blob, pytest.raises(HttpResponseError) as caught:
        blob.upload_page(bytes(512), 0, 512)
    assert caught.value.status_code == 403


def test_read_url_does_not_write(compute: ComputeManagementClient) -> None:
    _create(compute)
    _upload(_grant(compute, "Write"), vhd_footer(SIZE))
    compute.disks.begin_revoke_access(GROUP, "golden").result()
    with (
        BlobClient.from_blob_url(_grant(compute, "Read")) as blob,
        pytest.raises(HttpResponseError) as caught,
    ):
        blob.upload_page(bytes(512), 0, 512)
    assert caught.value.error_code == "AuthorizationPermissionMismatch"


def test_tags_and_lists(compute: ComputeManagementClient) -> None:
    _create(compute, "one")
    _create(compute, "two")
    update = compute.disks.begin_update(GROUP, "one", DiskUpdate(tags={"a": "b"}))
    assert update.result().tags == {"a": "b"}
    assert [disk.name for disk in compute.disks.list_by_resource_group(GROUP)] == ["one", "two"]
    assert [disk.name for disk in compute.disks.list()] == ["one", "two"]


def test_deleting_what_is_not_there_is_no_error(compute: ComputeManagementClient) -> None:
    compute.disks.begin_delete(GROUP, "never").result()


def test_slow_operations_are_polled(tmp_path: Path) -> None:
    with running_azure(lro_seconds=0.2) as sim, compute_client(sim) as compute:
        assert _create(compute).provisioning_state == "Succeeded"
        assert sim.stats.requests["arm.poll"] > 1


@pytest.mark.parametrize(
    ("group", "size", "expected"),
    [
        ("elsewhere", SIZE, (404, "ResourceGroupNotFound")),
        (GROUP, 10 * MIB, (400, "InvalidParameter")),
        (GROUP, 33 << 40, (400, "InvalidParameter")),
        (GROUP, SIZE + 1, (400, "InvalidParameter")),
    ],
    ids=["no-group", "too-small", "too-large", "no-page"],
)
def test_wrong_disk_is_refused(
    compute: ComputeManagementClient, group: str, size: int, expected: tuple[int, str]
) -> None:
    create = compute.disks.begin_create_or_update
    assert _failed(create, group, "golden", upload_disk(size)) == expected


def test_expired_token_is_refused(sim: AzureSim) -> None:
    with (
        compute_client(sim, sim.token(lifetime=-1)) as compute,
        pytest.raises(HttpResponseError) as caught,
    ):
        compute.disks.get(GROUP, "golden")
    assert caught.value.status_code == 401


def _certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for 127.0.0.1; return the server's context and the file that clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, private)
    return context, chain


def test_azure_identity_gets_its_token_here_over_tls(tmp_path: Path) -> None:
    context, chain = _certificate(tmp_path)
    with running_azure(tls=context) as sim:
        trust = {"connection_verify": str(chain)}
        credential = ClientSecretCredential(
            sim.identity.tenant,
            sim.identity.client_id,
            sim.identity.client_secret,
            authority=sim.url,
            disable_instance_discovery=True,
            **trust,
        )
        client = ComputeManagementClient(
            credential,
            sim.subscription,
            base_url=sim.url,
            credential_scopes=["https://management.azure.com/.default"],
            polling_interval=0,
            **trust,
        )
        with client as compute, credential:
            _create(compute)
            url = _grant(compute, "Write")
            with BlobClient.from_blob_url(url, **trust) as blob:
                blob.upload_page(vhd_footer(SIZE), SIZE, 512)
            compute.disks.begin_revoke_access(GROUP, "golden").result()
            assert compute.disks.get(GROUP, "golden").disk_state == "Unattached"
        assert url.startswith("https://127.0.0.1:")
        assert sim.stats.requests["token.issue"] == 1
