"""Upload jobs against the Azure simulator: certificates, credentials and one source image."""

import datetime
import ipaddress
import random
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.config import AgentConfig
from agent.stages.base import StageContext
from appliance.sim.azure import AzureSim
from imaging.units import MiB
from protocol.ops import AzureDisk, AzurePageBlob, LocalShare, UploadArgs
from tests.support.stage_jobs import config_for, make_job

SIZE = 33 * MiB + 512
CONTAINER = "vhds"


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for this machine; return its PEM file (to trust) and a server context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "imageport test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, key_file = folder / "ca.pem", folder / "key.pem"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca_file, key_file)
    return ca_file, context


@dataclass
class Uploads:
    """A source image and how to send it to one simulator.

    Attributes:
        sim: Where to.
        share: Folder with `golden.raw`.
        ca_file: Trusted certificate when the simulator speaks TLS.
    """

    sim: AzureSim
    share: Path
    ca_file: Path | None = None

    def source_bytes(self) -> bytes:
        """Return the source disk."""
        return (self.share / "golden.raw").read_bytes()

    def config(self, **uploads: object) -> AgentConfig:
        """Return an agent's configuration."""
        if self.ca_file is not None:
            uploads["ca_file"] = str(self.ca_file)
        return config_for(share=self.share, **uploads)

    def blob_job(
        self, *, name="golden.vhd", credential=None, uploads=None, options=None, **job
    ) -> StageContext:
        """Return a job for a page blob."""
        target = AzurePageBlob(endpoint=self.sim.blob_url, container=CONTAINER, blob=name)
        credential = credential or {"account_key": self.sim.key}
        return self._job(target, credential, uploads, options, job)

    def disk_job(
        self, *, name="golden", credential=None, uploads=None, options=None, target=None, **job
    ) -> StageContext:
        """Return a job for a managed disk; `target` adds to what the reference says."""
        reference = AzureDisk(
            subscription=self.sim.subscription,
            resource_group=self.sim.resource_group,
            location="westeurope",
            disk=name,
            management=self.sim.url,
            authority=self.sim.url,
            **(target or {}),
        )
        return self._job(reference, credential or self.principal(), uploads, options, job)

    def principal(self) -> dict[str, str]:
        """Return the simulator's service principal."""
        who = self.sim.identity
        return {
            "tenant_id": who.tenant,
            "client_id": who.client_id,
            "client_secret": who.client_secret,
        }

    def _job(self, target, credential, uploads, options, job) -> StageContext:
        args = UploadArgs(
            source=LocalShare(name="disks"),
            path="golden.raw",
            format="raw",
            target=target,
            **(options or {}),
        )
        config = self.config(**(uploads or {}))
        return make_job(args, config, secrets={"target.credential": credential}, **job)


def write_source(share: Path) -> None:
    """Write `golden.raw`: 33 MiB and a sector, a third of it data, some of that zeros."""
    rng = random.Random(11)
    with (share / "golden.raw").open("wb") as file:
        file.truncate(SIZE)
        for offset, length in ((0, 2 * MiB), (9 * MiB + 512, 6 * MiB), (SIZE - 512, 512)):
            file.seek(offset)
            file.write(rng.randbytes(length))
        file.seek(20 * MiB)
        file.write(bytes(2 * MiB))
