"""Who uploads: certificates, roles and machine identities of each cloud; and disks with unusual properties."""

import datetime
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import jwt
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from agent.errors import AgentError
from agent.stages.upload import UploadStage
from agent.targets.errors import CredentialRefused, EndpointForbidden
from appliance.sim.aws import AwsSim
from tests.support.aws_jobs import AwsJobs
from tests.support.azure_jobs import write_source
from tests.support.rigs import Rig, running

pytestmark = pytest.mark.fault


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("azure-disk", tmp_path) as rig:
        yield rig


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running("aws-snapshot", tmp_path) as rig:
        yield rig


def certificate() -> tuple[str, rsa.RSAPublicKey]:
    """Make a certificate; return its PEM with the key inside, and the public key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "imageport")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + made.public_bytes(serialization.Encoding.PEM)
    return pem.decode(), key.public_key()


async def test_a_certificate_proves_a_service_principal(azure: Rig) -> None:
    pem, key = certificate()
    azure.sim.trust_certificate(key)
    who = azure.sim.identity
    credential = {"tenant_id": who.tenant, "client_id": who.client_id, "certificate": pem}
    await UploadStage().run(azure.job(credential=credential))
    assert azure.stored() == azure.expected()


@pytest.mark.parametrize("wrong", ["other", "no-pem"])
async def test_a_wrong_certificate_is_refused_and_not_shown(azure: Rig, wrong: str) -> None:
    pem, _ = certificate()
    azure.sim.trust_certificate(certificate()[1])
    who = azure.sim.identity
    given = pem if wrong == "other" else "hunter2"
    credential = {"tenant_id": who.tenant, "client_id": who.client_id, "certificate": given}
    with pytest.raises(CredentialRefused) as caught:
        await UploadStage().run(azure.job(credential=credential))
    assert "hunter2" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


async def test_workload_identity_needs_its_file_in_the_appliances_configuration(azure: Rig) -> None:
    who = azure.sim.identity
    credential = {"tenant_id": who.tenant, "client_id": who.client_id, "workload_identity": "true"}
    with pytest.raises(CredentialRefused, match="azure_token_file"):
        await UploadStage().run(azure.job(credential=credential))


@pytest.mark.parametrize("signed_by", ["trusted", "another"])
async def test_a_federated_token_proves_a_workload(
    azure: Rig, tmp_path: Path, signed_by: str
) -> None:
    """The token is read when one is needed: its file is renewed by whoever runs the workload."""
    key, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "ab")
    azure.sim.trust_certificate(key.public_key())
    who = azure.sim.identity
    claims = {"sub": who.client_id, "aud": "api://AzureADTokenExchange", "exp": time.time() + 600}
    file = tmp_path / "token"
    file.write_text(jwt.encode(claims, key if signed_by == "trusted" else other, algorithm="RS256"))
    credential = {"tenant_id": who.tenant, "client_id": who.client_id, "workload_identity": "true"}
    job = azure.job(credential=credential, uploads={"azure_token_file": str(file)})
    if signed_by == "trusted":
        await UploadStage().run(job)
        assert azure.stored() == azure.expected()
    else:
        with pytest.raises(CredentialRefused, match="does not accept client"):
            await UploadStage().run(job)
        assert azure.left() == []


async def test_a_disk_gets_every_property_that_was_asked_for(azure: Rig) -> None:
    job = azure.job()
    arm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
    target = {name: getattr(job.args.target, name) for name in job.args.target.__struct_fields__}
    target |= {
        "security_type": "TrustedLaunch",
        "zones": ("1",),
        "disk_encryption_set": f"{arm}/diskEncryptionSets/des",
        "disk_access": f"{arm}/diskAccesses/da",
        "entra_upload": True,
    }
    args = {name: getattr(job.args, name) for name in job.args.__struct_fields__}
    args["target"] = type(job.args.target)(**target)
    await UploadStage().run(replace(job, args=type(job.args)(**args)))
    assert azure.stored() == azure.expected()
    (disk,) = azure.sim.vault.state.disks.values()
    assert (disk.sku, disk.zones) == ("Premium_LRS", ["1"])
    assert disk.more["securityProfile"] == {"securityType": "TrustedLaunch"}
    assert disk.more["encryption"]["diskEncryptionSetId"].endswith("/des")
    assert disk.more["diskAccessId"].endswith("/da")
    assert disk.more["dataAccessAuthMode"] == "AzureActiveDirectory"  # pages came with tokens


async def test_an_assumed_role_uploads_and_a_wrong_external_id_is_refused(aws: Rig) -> None:
    role = {"role_arn": aws.sim.access.role_arn, "external_id": "imageport-external"}
    await UploadStage().run(aws.job(credential={**aws.sim.keys(), **role}))
    assert aws.stored() == aws.expected()
    wrong = {**aws.sim.keys(), **role, "external_id": "other"}
    with pytest.raises(AgentError) as caught:
        await UploadStage().run(aws.job(credential=wrong, origin="ab" * 16))
    assert caught.value.code == "target.forbidden"


async def test_an_instance_role_uploads(tmp_path: Path) -> None:
    """The metadata service speaks plain HTTP."""
    write_source(tmp_path)
    async with AwsSim() as sim:
        job = AwsJobs(sim, tmp_path).snapshot_job(credential={"instance_role": "true"})
        outcome = await UploadStage().run(job)
    assert outcome.report["verified"]["root"] == outcome.root


async def test_a_profile_needs_the_appliances_own_file(aws: Rig, tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused, match="aws_config_file"):
        await UploadStage().run(aws.job(credential={"profile": "golden"}))
    keys = aws.sim.keys()
    file = tmp_path / "aws.conf"
    file.write_text(
        f"[profile golden]\naws_access_key_id = {keys['access_key_id']}\n"
        f"aws_secret_access_key = {keys['secret_access_key']}\n"
    )
    job = aws.job(credential={"profile": "golden"}, uploads={"aws_config_file": str(file)})
    await UploadStage().run(job)
    assert aws.stored() == aws.expected()


@pytest.mark.parametrize("how", ["instance", "appliance_credential"])
async def test_other_google_identities(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running("gcp-image", tmp_path) as rig:
        file = tmp_path / "key.json"
        file.write_text(rig.sim.service_account_key())
        if how == "instance":
            monkeypatch.setenv("GCE_METADATA_HOST", "nowhere.invalid")
            with pytest.raises(AgentError, match="token"):
                await UploadStage().run(rig.job(credential={"instance": "true"}))
            return
        with pytest.raises(CredentialRefused, match="gcp_credentials"):
            await UploadStage().run(rig.job(credential={how: "wif"}))
        uploads = {"gcp_credentials": {"wif": str(file)}}
        await UploadStage().run(rig.job(credential={how: "wif"}, uploads=uploads))
        assert rig.stored() == rig.expected()


@pytest.mark.parametrize("kind", ["azure-disk", "aws-snapshot", "gcp-image"])
async def test_no_credential_goes_where_the_sites_policy_does_not_let_it(
    kind: str, tmp_path: Path
) -> None:
    """The stage itself holds every endpoint to the policy, also those that nobody named in the order."""
    async with running(kind, tmp_path) as rig:
        job = rig.job()
        policy = msgspec.structs.replace(job.config.policy, endpoints=("https://only.example",))
        config = msgspec.structs.replace(job.config, policy=policy)
        rig.sim.stats.reset()
        with pytest.raises(EndpointForbidden, match="policy"):
            await UploadStage().run(replace(job, config=config))
        assert not rig.sim.stats.requests
