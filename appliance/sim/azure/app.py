"""AzureSim: the Azure simulator put together: storage account, managed disks, token endpoint, controls, one address.

async with AzureSim() as sim:
client = BlobServiceClient(sim.blob_url, credential={"account_name": sim.account, "account_key": sim.key})
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from appliance.sim.admin import PREFIX as ADMIN_PREFIX
from appliance.sim.admin import AdminPlane
from appliance.sim.azure import diskplane
from appliance.sim.azure.access import AccountAccess
from appliance.sim.azure.accountplane import AccountPlane
from appliance.sim.azure.admin import azure_controls
from appliance.sim.azure.arm import ArmPlane
from appliance.sim.azure.diskplane import DiskPlane
from appliance.sim.azure.disks import Disks, NewDisk
from appliance.sim.azure.footer import FOOTER_SIZE
from appliance.sim.azure.lro import Operations
from appliance.sim.azure.sas import SasVerifier, service_sas
from appliance.sim.azure.state import Container, DiskRecord, Identity, State, new_identity
from appliance.sim.azure.tokens import MANAGEMENT, TokenPlane
from appliance.sim.azure.unknown import UnknownPlane
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.base import Served, Simulator
from appliance.sim.call import Call, Plane, Refusal
from appliance.sim.server import azure_busy

ACCOUNT = "imageportsim"
RESOURCE_GROUP = "imageport"
LOCATION = "westeurope"


class AzureSim(Simulator):
    """One simulated subscription with one storage account.

    Args:
        resource_groups: Groups that exist.
        disk_domain: Put disks on hosts `md-impexp-x.<disk_domain>` instead of under a path.
        lro_seconds: How long disk operations and blob copies take.
        retry_after: What answers of running operations ask for.
        served: See `Served`.
    """

    kind: ClassVar[str] = "azure"

    def __init__(
        self,
        *,
        account: str = ACCOUNT,
        resource_groups: tuple[str, ...] = (RESOURCE_GROUP,),
        disk_domain: str = "",
        lro_seconds: float = 0.0,
        retry_after: int = 0,
        **served: Any,
    ) -> None:
        super().__init__(Served(**served))
        self._account = account
        self._groups = resource_groups
        self._disk_domain = disk_domain
        self._lro_seconds, self._retry_after = lro_seconds, retry_after

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._tokens.base_url = self._arm.base_url = self.url
        return self

    def _open(self, directory: Path) -> Callable[[], object]:
        self.vault = Vault(directory, self._fresh)
        self._wire()
        return self.vault.close

    def _busy(self, operation: str) -> Refusal:
        return azure_busy(operation)

    def _fresh(self) -> State:
        groups = {name.lower(): LOCATION for name in self._groups}
        return State(identity=new_identity(self._account), groups=groups)

    def _wire(self) -> None:
        identity = self.vault.state.identity
        self._voided = set(self.vault.state.voided)
        self.disks = Disks(self.vault, self._disk_url)
        self._tokens = TokenPlane(identity)
        self._verifier = SasVerifier(identity.account, identity.key, self._voided)
        access = AccountAccess(identity, self._verifier, self._tokens)
        self._account_plane = AccountPlane(
            self.vault, access, self.stats, copy_seconds=self._lro_seconds
        )
        self._disk_plane = DiskPlane(self.vault, self._voided, self.stats, self._tokens)
        operations = Operations(self._lro_seconds)
        self._arm = ArmPlane(self.vault, self.disks, self._tokens, operations, self._retry_after)
        self._admin = AdminPlane(self, azure_controls(self.vault, self.disks, self._tokens))
        self._unknown = UnknownPlane()

    def _route(self, call: Call) -> Plane:
        if diskplane.addressed(call):
            return self._disk_plane
        if call.path.startswith(ADMIN_PREFIX):
            return self._admin
        first = call.path.split("/", 2)[1] if "/" in call.path else ""
        if first.lower() == "subscriptions":
            return self._arm
        if first == self.identity.account:
            return self._account_plane
        if "/oauth2/" in call.path or "/.well-known/" in call.path:
            return self._tokens
        return self._unknown

    def _disk_url(self, disk: DiskRecord) -> str:
        if not self._disk_domain:
            return f"{self.url}/{disk.label}/{disk.folder}/abcd"
        scheme, _, address = self.url.partition("://")
        port = address.rpartition(":")[2]
        return f"{scheme}://{disk.label}.{self._disk_domain}:{port}/{disk.folder}/abcd"

    @property
    def identity(self) -> Identity:
        """Names and secrets that clients need."""
        return self.vault.state.identity

    @property
    def account(self) -> str:
        """Name of the storage account."""
        return self.identity.account

    @property
    def key(self) -> str:
        """Base64 key of the storage account."""
        return self.identity.key

    @property
    def subscription(self) -> str:
        """Id of the subscription."""
        return self.identity.subscription

    @property
    def resource_group(self) -> str:
        """First of the groups that exist."""
        return next(iter(self.vault.state.groups))

    @property
    def blob_url(self) -> str:
        """URL of the Blob service."""
        return f"{self.url}/{self.account}"

    def expire(self) -> None:
        """Expire every SAS that was issued or seen so far; new grants work."""
        self._voided |= self._verifier.known | self._disk_plane.known
        for disk in self.vault.state.disks.values():
            for policy in disk.policies.values():
                policy.expires = min(policy.expires, self.clock())
        self.vault.state.voided = sorted(self._voided)
        self.vault.save()

    def set_permissions(self, granted: list[str] | None) -> None:
        """Hold every caller of ARM to these actions; None grants everything."""
        self.vault.state.granted = granted
        self.vault.save()

    def trust_certificate(self, key: RSAPublicKey) -> None:
        """Take client assertions that this key signed, instead of the client's secret."""
        self._tokens.certificate_keys = [key]

    def make_sas(
        self, container: str, blob: str = "", *, permissions: str = "rw", ttl: float = 3600.0
    ) -> str:
        """Return the query string of a service SAS for a container or one of its blobs."""
        canonical = f"/blob/{self.account}/{container}" + (f"/{blob}" if blob else "")
        expiry = datetime.fromtimestamp(self.clock() + ttl, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return service_sas(
            self.key, canonical, {"sr": "b" if blob else "c", "sp": permissions, "se": expiry}
        )

    def token(self, audience: str = MANAGEMENT, *, lifetime: float = 3600.0) -> str:
        """Return a bearer token for ARM, or for storage with `tokens.STORAGE`."""
        return self._tokens.issue(audience, now=self.clock(), lifetime=lifetime)

    def make_container(self, name: str) -> None:
        """Make a container, for clients that have a SAS only."""
        self.vault.state.containers[name] = Container(created=self.clock())
        self.vault.save()

    def upload_disk(self, name: str, size: int, *, seconds: int = 3600) -> str:
        """Make a managed disk of `size` bytes ready for upload; return its URL with a write SAS."""
        wanted = NewDisk(LOCATION, "Premium_LRS", size + FOOTER_SIZE, "", "", [], {})
        disk = self.disks.create(self.resource_group, name, wanted, self.clock())
        self.disks.provisioned(disk)
        return self.disks.grant(disk, "Write", seconds, self.clock())

    def make_gallery(self, name: str, location: str = LOCATION) -> None:
        """Make a Compute Gallery in the first resource group."""
        self._arm.galleries.add(self.resource_group, name, location)

    def blob(self, container: str, name: str) -> PageBlob:
        """Return a blob as stored, for tests to look at or to damage."""
        return self.vault.blobs[f"{container}/{name}"]

    def disk_blob(self, name: str, group: str = RESOURCE_GROUP) -> PageBlob:
        """Return the bytes behind a managed disk."""
        return self.vault.disks[Disks.key(group, name)]

    def describe(self) -> dict[str, Any]:
        """Return what a client needs, as `imageport sim azure` prints it."""
        identity = self.identity
        return {
            "url": self.url,
            "blob_url": self.blob_url,
            "account": identity.account,
            "key": identity.key,
            "subscription": identity.subscription,
            "resource_groups": list(self.vault.state.groups),
            "location": LOCATION,
            "tenant": identity.tenant,
            "client_id": identity.client_id,
            "client_secret": identity.client_secret,
        }
