"""Building: what the strategies that make an AMI share: names, tags, intents, waiting, the billing check."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from agent.errors import Permanent
from agent.targets.aws.control import AwsControl
from agent.targets.aws.inventory import FINAL, IMAGE, STATE, Inventory, Resource, Scope, id_of
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog
from agent.targets.errors import DiskLost, TargetRefused
from protocol.ops import AwsImage

T = TypeVar("T")

POLL_S = 5.0
LINUX, WINDOWS, BYOL = "RunInstances", "RunInstances:0002", "RunInstances:0800"
PLATFORMS = {LINUX: "Linux/UNIX", WINDOWS: "Windows", BYOL: "Windows BYOL"}


class BillingPlatform(Permanent):
    """The AMI would be billed as another platform than the disk's: it was removed again."""

    code = "aws.billing-platform"
    fix = (
        "Choose another strategy in the job's target: instance-swap or import-image for Windows, "
        "register-image for Linux."
    )


class StrategyRefused(Permanent):
    """The strategy does not fit the disk."""

    code = "aws.strategy"
    fix = "Choose a strategy that fits in the job's target; docs/jobspec.md has the table."


class ImportFailed(Permanent):
    """VM Import refused the disk."""

    code = "aws.import-failed"
    fix = "Read AWS' own message above; what was sent is kept."


@dataclass(frozen=True, slots=True)
class Building:
    """One verified snapshot that an AMI is made of.

    Attributes:
        control / inventory: Of the job's account.
        ref: What the job asks for.
        scope: Where, as in Intent.
        name: The AMI's.
        snapshot: Its id; completed and verified.
        spec / intents: As given to `open`.
    """

    control: AwsControl
    inventory: Inventory
    ref: AwsImage
    scope: Scope
    name: str
    snapshot: str
    spec: DiskSpec
    intents: IntentLog

    def intent(self, kind: str, name: str = "") -> Intent:
        """Return the intent of one object of this job."""
        return Intent(kind, self.scope, name or self.name)

    def tags(self, name: str = "", state: str = FINAL) -> dict[str, str]:
        """Return the tags of an object: the administrator's, its name and who made it."""
        named = name or self.name
        owner = self.spec.tagger.tags(self.scope, named)
        return {**self.ref.tags, "Name": named, **owner, STATE: state}

    def token(self, what: str) -> str:
        """Return what makes a create call repeatable (ClientToken, up to 64 letters)."""
        text = f"{self.spec.tagger.origin}/{self.name}/{self.snapshot}/{what}"
        return hashlib.sha256(text.encode()).hexdigest()[:60]

    async def image_of_line(self) -> Resource | None:
        """Return the AMI that an earlier attempt of this line made."""
        return await self.inventory.of_line(self.intent(IMAGE), self.spec.tagger)

    async def wait_for_image(self, image_id: str) -> Resource:
        """Return the AMI once it is available."""

        async def look() -> Resource | None:
            image = await self.inventory.get(IMAGE, image_id)
            if image is not None and image.get("State") == "failed":
                msg = f"{image_id} failed: {image.get('StateReason', {}).get('Message', 'no reason given')}"
                raise TargetRefused(msg)
            return image if image is not None and image.get("State") == "available" else None

        return await wait_for(look)

    async def artifact(self, image: Resource, usage: str, **more: str | int | bool) -> Artifact:
        """Check what the AMI will be billed as, and describe it.

        Raises:
            BillingPlatform: It is another platform; the AMI is deregistered.
        """
        image_id = id_of(IMAGE, image)
        found = (image.get("PlatformDetails"), image.get("UsageOperation"))
        if found != (PLATFORMS[usage], usage):
            await self.control.call("ec2", "deregister_image", ImageId=image_id)
            await self.intents.removed(self.intent(IMAGE))
            msg = (
                f"{image_id} would be billed as {found[0]} ({found[1]}), expected {PLATFORMS[usage]} ({usage});"
                f" it was deregistered, {self.snapshot} is kept"
            )
            raise BillingPlatform(msg, found=found[0], expected=PLATFORMS[usage])
        properties: dict[str, str | int | bool] = {
            "name": self.name,
            "size": self.spec.padded_size,
            "snapshot": self.snapshot,
            "region": self.ref.region,
            "platform_details": PLATFORMS[usage],
            "usage_operation": usage,
            "boot_mode": str(image.get("BootMode", "")),
            **more,
        }
        return Artifact(IMAGE, image_id, properties)


class Strategy(Protocol):
    """One way from a snapshot to an AMI."""

    name: ClassVar[str]

    def objects(self, name: str) -> list[str]:
        """Return what it would create, in words for people."""
        ...

    def check(self, ref: AwsImage) -> None:
        """Raise StrategyRefused if it cannot make what `ref` asks for."""
        ...

    async def make(self, building: Building) -> Artifact:
        """Make the AMI; may be called again after a crash and makes no second one."""
        ...


async def begun(
    intents: IntentLog,
    intent: Intent,
    *,
    failed: Callable[[str], Awaitable[bool]],
    begin: Callable[[str], Awaitable[str]],
) -> str:
    """Return the id of a task that this line began, or begins now.

    One that failed is begun anew: what was in the way may be mended, and the service would find it again by its token.

    Args:
        intents: Of the job.
        intent: Of the task.
        failed: Whether a task has failed.
        begin: Begins one and returns its id; what it is given makes the token another than that of a failed task.
    """
    task, before = intents.known(intent) or "", ""
    if task and await failed(task):
        task, before = "", task
    if not task:
        await intents.record(intent)
        task = await begin(before)
        await intents.created(intent, task)
    return task


async def wait_for(look: Callable[[], Awaitable[T | None]]) -> T:
    """Ask until there is an answer; the job's own deadline ends it."""
    while (found := await look()) is None:  # noqa: ASYNC110 - a service is polled
        await asyncio.sleep(POLL_S)
    return found


def require(resource: Resource | None, what: str) -> Resource:
    """Return a resource that has to be there."""
    if resource is None:
        msg = f"{what} is gone"
        raise DiskLost(msg)
    return resource
