"""Strategy `instance-swap`: a licensed instance gets the disk as its root volume, and becomes the AMI.

A stock Windows AMI of AWS -> instance -> CreateReplaceRootVolumeTask(VolumeId) -> CreateImage -> instance and volumes
are deleted. The AMI keeps the instance's billing code, and nothing edits the guest but its one boot.
"""

from typing import Any, ClassVar

from agent.targets.aws.building import WINDOWS, Building, StrategyRefused, require, wait_for
from agent.targets.aws.control import AwsControl
from agent.targets.aws.inventory import (
    IMAGE,
    INSTANCE,
    VOLUME,
    WRITING,
    Inventory,
    Resource,
    id_of,
    specification,
    state_of,
)
from agent.targets.base import Artifact
from agent.targets.errors import TargetRefused
from protocol.ops import AwsImage


class InstanceSwap:
    """See the module."""

    name: ClassVar[str] = "instance-swap"

    def objects(self, name: str) -> list[str]:
        """See `Strategy`."""
        return [
            f"instance {name}-swap (temporary)",
            f"volume {name}-root (temporary)",
            f"AMI {name}, with a snapshot of its own",
        ]

    def check(self, ref: AwsImage) -> None:
        """Windows with AWS' licence, and something to launch."""
        if ref.os_type != "Windows" or ref.license != "aws":
            raise StrategyRefused("instance-swap is for Windows with AWS' licence")
        if ref.swap is None:
            raise StrategyRefused("instance-swap needs [target.swap] with image and subnet")

    async def make(self, building: Building) -> Artifact:
        """Go on from wherever an earlier attempt got: every create call is repeatable by its token."""
        image = await building.image_of_line()
        if image is None:
            instance = await self._instance(building)
            await self._swap_root(building, instance)
            image_id = await self._create_image(building, id_of(INSTANCE, instance))
        else:
            image_id = id_of(IMAGE, image)
        await building.intents.created(building.intent(IMAGE), image_id)
        made = await building.wait_for_image(image_id)
        await self._clean_up(building)
        return await building.artifact(made, WINDOWS, strategy=self.name)

    async def _instance(self, building: Building) -> Resource:
        launch = building.ref.swap
        assert launch is not None  # `check` saw to it
        name = _instance_name(building)
        intent = building.intent(INSTANCE, name)
        await building.intents.record(intent)
        tags = building.tags(name, WRITING)
        request: dict[str, Any] = {
            "ImageId": launch.image,
            "InstanceType": launch.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": launch.subnet,
            "ClientToken": building.token("instance"),
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "TagSpecifications": [specification("instance", tags), specification("volume", tags)],
        }
        if launch.security_groups:
            request["SecurityGroupIds"] = list(launch.security_groups)
        answer = await building.control.call("ec2", "run_instances", **request)
        instance_id = str(answer["Instances"][0]["InstanceId"])
        await building.intents.created(intent, instance_id)

        async def running() -> Resource | None:
            found = require(await building.inventory.get(INSTANCE, instance_id), instance_id)
            return found if state_of(INSTANCE, found) == "running" else None

        ready: Resource = await wait_for(running)
        return ready

    async def _swap_root(self, building: Building, instance: Resource) -> None:
        name = _volume_name(building)
        intent = building.intent(VOLUME, name)
        await building.intents.record(intent)
        answer = await building.control.call(
            "ec2",
            "create_volume",
            SnapshotId=building.snapshot,
            AvailabilityZone=instance["Placement"]["AvailabilityZone"],
            VolumeType=building.ref.volume_type,
            ClientToken=building.token("volume"),
            TagSpecifications=[specification("volume", building.tags(name, WRITING))],
        )
        volume_id = str(answer["VolumeId"])
        await building.intents.created(intent, volume_id)

        async def ready() -> bool | None:
            found = require(await building.inventory.get(VOLUME, volume_id), volume_id)
            return True if state_of(VOLUME, found) in ("available", "in-use") else None

        await wait_for(ready)
        answer = await building.control.call(
            "ec2",
            "create_replace_root_volume_task",
            InstanceId=id_of(INSTANCE, instance),
            VolumeId=volume_id,
            ClientToken=building.token("swap"),
            DeleteReplacedRootVolume=True,
        )
        await self._wait_for_swap(building, answer["ReplaceRootVolumeTask"])

    async def _wait_for_swap(self, building: Building, task: Resource) -> None:
        task_id = str(task["ReplaceRootVolumeTaskId"])

        async def look() -> bool | None:
            answer = await building.control.call(
                "ec2", "describe_replace_root_volume_tasks", ReplaceRootVolumeTaskIds=[task_id]
            )
            found: Resource = next(iter(answer.get("ReplaceRootVolumeTasks", [])), {})
            state = str(found.get("TaskState", ""))
            if state.startswith("failed"):
                msg = f"{task_id} ended as {state}"
                raise TargetRefused(msg, task=task_id)
            return True if state == "succeeded" else None

        await wait_for(look)

    async def _create_image(self, building: Building, instance_id: str) -> str:
        await building.intents.record(building.intent(IMAGE))
        tags = building.tags()
        answer = await building.control.call(
            "ec2",
            "create_image",
            InstanceId=instance_id,
            Name=building.name,
            Description="imported by imageport",
            TagSpecifications=[specification("image", tags), specification("snapshot", tags)],
        )
        return str(answer["ImageId"])

    async def _clean_up(self, building: Building) -> None:
        """Terminate the instance, which takes its root volume along."""
        for kind, name in ((INSTANCE, _instance_name(building)), (VOLUME, _volume_name(building))):
            intent = building.intent(kind, name)
            known = building.intents.known(intent)
            if known and await building.inventory.get(kind, known) is not None:
                await remove(building.control, building.inventory, kind, known)
            await building.intents.removed(intent)


def _instance_name(building: Building) -> str:
    return f"{building.name}-swap"


def _volume_name(building: Building) -> str:
    return f"{building.name}-root"


async def remove(control: AwsControl, inventory: Inventory, kind: str, object_id: str) -> None:
    """Delete an instance or a volume, and wait until it is gone."""
    if kind == INSTANCE:
        await control.call("ec2", "terminate_instances", InstanceIds=[object_id])
    elif await inventory.get(kind, object_id) is not None:  # an instance may have taken it along
        await control.call("ec2", "delete_volume", VolumeId=object_id)

    async def gone() -> bool | None:
        return True if await inventory.get(kind, object_id) is None else None

    await wait_for(gone)
