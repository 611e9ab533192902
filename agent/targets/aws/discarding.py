"""Discarder: take back what a line of jobs made in an AWS account, in whatever state a crash or a cancel left it."""

from dataclasses import dataclass

from agent.targets.aws.control import AwsControl
from agent.targets.aws.inventory import (
    IMAGE,
    IMPORT,
    INSTANCE,
    SNAPSHOT,
    VOLUME,
    Inventory,
    Resource,
    id_of,
    snapshots_of,
    tags_of,
)
from agent.targets.aws.swap import remove
from agent.targets.base import Intent
from agent.targets.tags import Tagger


@dataclass(frozen=True, slots=True)
class Discarder:
    """Deletes for one line of jobs; only what carries its owner tag.

    Attributes:
        control / inventory: Of the account.
        tagger: Of the line.
    """

    control: AwsControl
    inventory: Inventory
    tagger: Tagger

    async def discard(self, intent: Intent, object_id: str) -> str | None:
        """Delete what an intent made; None when it is gone, else why it is left."""
        if intent.kind == IMPORT:
            return await self._cancel_import(object_id)
        if object_id:
            resource = await self.inventory.get(intent.kind, object_id)
        else:
            resource = await self.inventory.of_line(intent, self.tagger)
        if resource is None:
            return None
        where = f"{intent.kind.removeprefix('aws.')} {id_of(intent.kind, resource)}"
        if not self._is_ours(resource, intent, intent.name):
            return f"{where} carries another owner tag"
        return await self._delete(intent, resource, where)

    async def _delete(self, intent: Intent, resource: Resource, where: str) -> str | None:
        object_id = id_of(intent.kind, resource)
        if intent.kind == IMAGE:
            await self._deregister(resource, intent)
            return None
        if intent.kind == SNAPSHOT:
            return await self._delete_snapshot(object_id, where)
        if intent.kind == VOLUME and (reason := await self._detach(resource, intent, where)):
            return reason
        await remove(self.control, self.inventory, intent.kind, object_id)
        return None

    async def _deregister(self, image: Resource, intent: Intent) -> None:
        """Deregister an AMI, and delete the snapshots behind it that are this line's."""
        await self.control.call("ec2", "deregister_image", ImageId=id_of(IMAGE, image))
        for snapshot in snapshots_of(image):
            found = await self.inventory.get(SNAPSHOT, snapshot)
            if found is not None and self._is_ours(found, intent, intent.name):
                await self._delete_snapshot(snapshot, snapshot)

    async def _delete_snapshot(self, snapshot: str, where: str) -> str | None:
        filters = [{"Name": "block-device-mapping.snapshot-id", "Values": [snapshot]}]
        answer = await self.control.call("ec2", "describe_images", Owners=["self"], Filters=filters)
        users = ", ".join(str(image["ImageId"]) for image in answer.get("Images", []))
        if users:
            return f"{where} is used by {users}"
        await self.control.call("ec2", "delete_snapshot", SnapshotId=snapshot)
        return None

    async def _detach(self, volume: Resource, intent: Intent, where: str) -> str | None:
        """Terminate this line's own instance that has the volume; say so if it is another's."""
        for attachment in volume.get("Attachments", []):
            machine = str(attachment.get("InstanceId", ""))
            found = await self.inventory.get(INSTANCE, machine)
            if found is None:
                continue
            if not self._is_ours(found, intent, tags_of(found).get("Name", "")):
                return f"{where} is attached to {machine}"
            await remove(self.control, self.inventory, INSTANCE, machine)
        return None

    async def _cancel_import(self, task: str) -> str | None:
        if task:
            await self.control.call("ec2", "cancel_import_task", ImportTaskId=task)
        return None

    def _is_ours(self, resource: Resource, intent: Intent, name: str) -> bool:
        return self.tagger.is_this_line(tags_of(resource), intent.scope, name)
