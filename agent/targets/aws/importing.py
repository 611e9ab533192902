"""Strategy `import-image`: VM Import makes a licensed Windows AMI of the snapshot.

It edits the guest (drivers, registry, SSM agent; "What VM Import modifies"), so the AMI is no longer the disk that was
proven: the result names that. The role `vmimport` has to be there.
"""

from typing import Any, ClassVar

from agent.targets.aws.building import (
    BYOL,
    WINDOWS,
    Building,
    ImportFailed,
    StrategyRefused,
    begun,
    wait_for,
)
from agent.targets.aws.inventory import IMAGE, IMPORT, snapshots_of, specification
from agent.targets.base import Artifact
from protocol.ops import AwsImage


class ImportImage:
    """See the module."""

    name: ClassVar[str] = "import-image"

    def objects(self, name: str) -> list[str]:
        """See `Strategy`."""
        return [f"import task {name} (temporary)", f"AMI {name}, with a snapshot of its own"]

    def check(self, ref: AwsImage) -> None:
        """Windows, in a boot mode that VM Import takes."""
        if ref.os_type != "Windows":
            raise StrategyRefused("import-image is for Windows; a Linux disk needs register-image")
        if ref.boot_mode == "uefi-preferred":
            raise StrategyRefused("import-image takes boot_mode uefi or legacy-bios")

    async def make(self, building: Building) -> Artifact:
        """Import, or go on waiting for the import that an earlier attempt began."""
        ref, intents = building.ref, building.intents
        task_id = await begun(
            intents,
            building.intent(IMPORT),
            failed=lambda task: _has_failed(building, task),
            begin=lambda before: self._begin(building, building.token(f"import{before}")),
        )
        image_id = await self._wait(building, task_id)
        await intents.record(building.intent(IMAGE))
        await intents.created(building.intent(IMAGE), image_id)
        image = await building.wait_for_image(image_id)
        await building.inventory.tag([image_id, *snapshots_of(image)], building.tags())
        await intents.removed(building.intent(IMPORT))  # it ended
        usage = BYOL if ref.license == "byol" else WINDOWS
        edited = "AWS VM Import changed drivers, registry and services inside the guest"
        return await building.artifact(image, usage, strategy=self.name, edited=edited)

    async def _begin(self, building: Building, token: str) -> str:
        ref = building.ref
        answer = await building.control.call(
            "ec2",
            "import_image",
            Architecture="x86_64",
            BootMode=ref.boot_mode,
            ClientToken=token,
            Description=building.name,
            DiskContainers=[{"SnapshotId": building.snapshot}],
            LicenseType=ref.license.upper(),
            Platform="Windows",
            RoleName=ref.import_role,
            TagSpecifications=[specification("import-image-task", building.tags())],
        )
        return str(answer["ImportTaskId"])

    async def _wait(self, building: Building, task_id: str) -> str:
        async def look() -> str | None:
            task = await _task(building, task_id)
            if _failed(task):
                msg = f"{task_id} was ended: {task.get('StatusMessage', 'no reason given')}"
                raise ImportFailed(msg, task=task_id)
            done = task.get("Status") == "completed" and task.get("ImageId")
            return str(task["ImageId"]) if done else None

        found: str = await wait_for(look)
        return found


async def _task(building: Building, task_id: str) -> dict[str, Any]:
    answer = await building.control.call(
        "ec2", "describe_import_image_tasks", ImportTaskIds=[task_id]
    )
    return next(iter(answer.get("ImportImageTasks", [])), {})


async def _has_failed(building: Building, task_id: str) -> bool:
    return _failed(await _task(building, task_id))


def _failed(task: dict[str, Any]) -> bool:
    return task.get("Status") in ("deleted", "deleting")
