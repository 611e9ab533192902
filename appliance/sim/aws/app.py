"""AwsSim: the AWS simulator put together: EBS direct, EC2, STS, instance metadata, controls, one address.

async with AwsSim() as sim:
ebs = boto3.client("ebs", endpoint_url=sim.url, region_name=sim.region, ...)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from appliance.sim.admin import PREFIX as ADMIN_PREFIX
from appliance.sim.admin import AdminPlane, Handler
from appliance.sim.aws import ebs, sts
from appliance.sim.aws.access import EXTERNAL_ID, Access
from appliance.sim.aws.ebs import EbsPlane
from appliance.sim.aws.ec2 import Ec2Plane, snapshot_handlers
from appliance.sim.aws.images import Images
from appliance.sim.aws.imports import Imports
from appliance.sim.aws.machines import SUBNET, Machines
from appliance.sim.aws.s3 import S3Plane
from appliance.sim.aws.sigv4 import scope_of
from appliance.sim.aws.snapshots import Snapshots
from appliance.sim.aws.state import Identity, State, new_identity
from appliance.sim.aws.sts import ImdsPlane, StsPlane
from appliance.sim.aws.vault import BLOCK, SnapshotData, Vault
from appliance.sim.base import Served, Simulator
from appliance.sim.call import Call, Plane, Refusal
from appliance.sim.objects.shelf import Shelf

REGION = "eu-central-1"
BUCKET = "imageport-sim-images"
STOCK = (
    ("Windows_Server-2022-English-Full-Base-2026.11.11", "uefi", "RunInstances:0002"),
    ("Windows_Server-2019-English-Full-Base-2026.11.11", "legacy-bios", "RunInstances:0002"),
    ("debian-12-amd64-20261101-1", "uefi-preferred", "RunInstances"),
)


class AwsSim(Simulator):
    """One simulated account in one region.

    Args:
        unseen_s: Seconds after StartSnapshot in which the data plane does not know the snapshot yet.
        complete_s: Seconds from CompleteSnapshot until a snapshot is completed.
        task_s: Seconds that imports, root volume replacements and CreateImage take.
        session_s: Seconds that the metadata service's credentials last.
        served: See `Served`.
    """

    kind: ClassVar[str] = "aws"
    body_most: ClassVar[int] = 80 << 20

    def __init__(
        self,
        *,
        region: str = REGION,
        unseen_s: float = 0.0,
        complete_s: float = 0.0,
        task_s: float = 0.0,
        session_s: float = 3600.0,
        **served: Any,
    ) -> None:
        super().__init__(Served(**served))
        self._region = region
        self._unseen_s, self._complete_s, self._task_s = unseen_s, complete_s, task_s
        self._session_s = session_s

    def _open(self, directory: Path) -> Callable[[], object]:
        self.vault = Vault(directory, self._fresh)
        self.access = Access(self.vault)
        snapshots = Snapshots(self.vault, unseen_s=self._unseen_s, complete_s=self._complete_s)
        images = Images(self.vault, snapshots, seconds=self._task_s)
        machines = Machines(self.vault, images, seconds=self._task_s)
        if not self.vault.state.images:
            for name, boot_mode, billing in STOCK:
                images.add_stock(name, boot_mode=boot_mode, billing=billing, now=self.clock())
        self._ebs = EbsPlane(self.vault, self.access, snapshots, self.stats)
        self.shelf = Shelf(directory, self.vault.state, self.vault.save)
        imports = Imports(self.vault, self.shelf, seconds=self._task_s)
        self._s3 = S3Plane(self.shelf, self.access, self.stats)
        handlers = {
            **snapshot_handlers(self.vault, snapshots),
            **imports.handlers(),
            **images.handlers(),
            **machines.handlers(),
        }
        self._ec2 = Ec2Plane(self.access, handlers)
        self._sts = StsPlane(self.vault, self.access)
        self._imds = ImdsPlane(self.access, seconds=self._session_s)
        self._admin = AdminPlane(self, self._controls())
        return self.vault.close

    def _fresh(self) -> State:
        return State(identity=new_identity(self._region), buckets={BUCKET: self._region})

    def _route(self, call: Call) -> Plane:
        if call.path.startswith(ADMIN_PREFIX):
            return self._admin
        if call.path.startswith(ebs.PREFIX):
            return self._ebs
        if call.path.startswith(sts.METADATA):
            return self._imds
        scope = scope_of(call)
        planes: dict[str, Plane] = {"sts": self._sts, "s3": self._s3}
        return planes.get(scope.service if scope else "", self._ec2)

    def _busy(self, operation: str) -> Refusal:
        if operation.startswith("s3."):
            return Refusal(503, "SlowDown", "Please reduce your request rate.")
        if operation.startswith("ebs."):
            message = "Rate exceeded for the account."
            return Refusal(400, "RequestThrottledException/ACCOUNT_THROTTLED", message)
        return Refusal(503, "RequestLimitExceeded", "Request limit exceeded.")

    def _controls(self) -> dict[tuple[str, str], Handler]:
        def flip(_call: Call, wanted: dict[str, Any]) -> None:
            if "object" in wanted:
                found = self.shelf.find(str(wanted["bucket"]), str(wanted["object"]))
                self.shelf.flip(found, int(wanted["offset"]))
                return
            self.snapshot(str(wanted["snapshot"])).file.flip(int(wanted["offset"]))

        def policy(_call: Call, wanted: dict[str, Any]) -> None:
            self.set_policy(wanted or None)

        return {("POST", "flip"): flip, ("POST", "policy"): policy}

    @property
    def identity(self) -> Identity:
        """Names and secrets that clients need."""
        return self.vault.state.identity

    @property
    def region(self) -> str:
        """The one region."""
        return self.identity.region

    def keys(self) -> dict[str, str]:
        """Return the account's long-term credential, as a job's secret holds it."""
        who = self.identity
        return {"access_key_id": who.access_key, "secret_access_key": who.secret_key}

    def set_policy(self, policy: dict[str, Any] | None) -> None:
        """Hold every caller to an IAM policy document; None allows everything."""
        self.vault.state.policy = policy
        self.vault.save()

    def expire(self) -> None:
        """End every temporary credential; new ones work."""
        self.access.expire(self.clock())

    def snapshot(self, snapshot_id: str) -> SnapshotData:
        """Return the bytes of a snapshot, for tests to look at or to damage."""
        return self.vault.data(self.vault.state.snapshots[snapshot_id])

    def stock_image(self, prefix: str) -> str:
        """Return the id of one of AWS' own images."""
        images = self.vault.state.images.values()
        return next(i.id for i in images if i.owner == "amazon" and i.name.startswith(prefix))

    def describe(self) -> dict[str, Any]:
        """Return what a client needs, as `imageport sim aws` prints it."""
        return {
            "url": self.url,
            "region": self.region,
            "account": self.identity.account,
            **self.keys(),
            "role_arn": self.access.role_arn,
            "external_id": EXTERNAL_ID,
            "subnet": SUBNET,
            "windows_image": self.stock_image("Windows_Server-2022"),
            "block_size": BLOCK,
            "bucket": BUCKET,
        }
