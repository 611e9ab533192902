"""AzureSim: the Azure simulator put together: storage account, managed disks, token endpoint, controls, one address.

    async with AzureSim() as sim:
        client = BlobServiceClient(sim.blob_url, credential={"account_name": sim.account, "account_key": sim.key})

Only place of the simulator that reads the clock.
"""

import fcntl
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from appliance.sim.azure import diskplane
from appliance.sim.azure.access import AccountAccess
from appliance.sim.azure.accountplane import AccountPlane
from appliance.sim.azure.admin import PREFIX as ADMIN_PREFIX
from appliance.sim.azure.admin import AdminPlane
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
from appliance.sim.call import Call, Plane
from appliance.sim.faults import FaultPlan
from appliance.sim.server import SimServer
from appliance.sim.stats import Stats

ACCOUNT = "imageportsim"
RESOURCE_GROUP = "imageport"
LOCATION = "westeurope"


class AzureSim:
    """One simulated subscription with one storage account.

    Args:
        state_dir: Keeps blobs, disks and identity over restarts; a temporary directory without it.
        faults: Plan to begin with.
        host / port: Address to listen on; port 0 takes a free one.
        resource_groups: Groups that exist.
        tls: Serve HTTPS with this context.
        public_url: What clients reach the simulator by, when it is not the listening address.
        disk_domain: Put disks on hosts `md-impexp-x.<disk_domain>` instead of under a path.
        lro_seconds: How long disk operations and blob copies take.
        retry_after: What answers of running operations ask for.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        state_dir: Path | None = None,
        faults: FaultPlan | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        account: str = ACCOUNT,
        resource_groups: tuple[str, ...] = (RESOURCE_GROUP,),
        tls: ssl.SSLContext | None = None,
        public_url: str = "",
        disk_domain: str = "",
        lro_seconds: float = 0.0,
        retry_after: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state_dir = state_dir
        self._host, self._port = host, port
        self._account = account
        self._groups = resource_groups
        self._tls = tls
        self._disk_domain = disk_domain
        self._lro_seconds, self._retry_after = lro_seconds, retry_after
        self._plan = faults or FaultPlan()
        self.clock = clock
        self.url = public_url
        self.stats = Stats()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            directory = self._state_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="imageport-sim-"))
            )
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(directory))
            self.vault = Vault(directory, self._fresh)
            stack.callback(self.vault.close)
            self._wire()
            port = await self._server.start(self._host, self._port, self._tls)
            stack.push_async_callback(self._server.stop)
            scheme = "https" if self._tls else "http"
            self.url = self.url or f"{scheme}://{_reachable(self._host)}:{port}"
            self._tokens.base_url = self._arm.base_url = self.url
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

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
        self._disk_plane = DiskPlane(self.vault, self._voided, self.stats)
        operations = Operations(self._lro_seconds)
        self._arm = ArmPlane(self.vault, self.disks, self._tokens, operations, self._retry_after)
        self._server = SimServer(
            self._route,
            self._plan,
            stats=self.stats,
            expire_sas=self.expire_all_sas,
            clock=self.clock,
        )
        self._admin = AdminPlane(
            self.vault,
            self.disks,
            self._tokens,
            stats=self.stats,
            plan=lambda: self._server.engine.plan,
            set_faults=self.set_faults,
            expire_sas=self.expire_all_sas,
        )
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

    def set_faults(self, plan: FaultPlan) -> None:
        """Replace the fault plan."""
        self._server.set_faults(plan)

    def expire_all_sas(self) -> None:
        """Expire every SAS that was issued or seen so far; new grants work."""
        self._voided |= self._verifier.known | self._disk_plane.known
        for disk in self.vault.state.disks.values():
            for policy in disk.policies.values():
                policy.expires = min(policy.expires, self.clock())
        self.vault.state.voided = sorted(self._voided)
        self.vault.save()

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


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep a second simulator out of the state directory; a killed one leaves no lock behind."""
    with (directory / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise OSError(err.errno, f"{directory} is in use by another simulator") from err
        yield


def _reachable(host: str) -> str:
    """Return how clients of this machine write a listening address in a URL."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"[{address}]" if ":" in address else address
