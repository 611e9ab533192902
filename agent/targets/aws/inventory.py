"""What is there in one account and region, by name, by id and by owner tag; and how resources are tagged."""

from dataclasses import dataclass
from typing import Any

from agent.targets.aws.control import AwsControl
from agent.targets.base import Intent
from agent.targets.errors import DiskLost, TargetNotFound
from agent.targets.tags import Tagger

SNAPSHOT, IMAGE, VOLUME, INSTANCE, IMPORT = (
    "aws.snapshot",
    "aws.image",
    "aws.volume",
    "aws.instance",
    "aws.import-task",
)
STATE = "imageport-state"
WRITING, UNVERIFIED, FINAL = "writing", "unverified", "final"
_GONE = ("error", "terminated", "deleted", "deleting", "shutting-down", "deregistered")

Resource = dict[str, Any]
Scope = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of resource is looked for: action, its id parameter, where the answer has them and their ids."""

    action: str
    ids: str
    answer: str
    id: str
    state: str


_KINDS = {
    SNAPSHOT: _Kind("describe_snapshots", "SnapshotIds", "Snapshots", "SnapshotId", "State"),
    IMAGE: _Kind("describe_images", "ImageIds", "Images", "ImageId", "State"),
    VOLUME: _Kind("describe_volumes", "VolumeIds", "Volumes", "VolumeId", "State"),
    INSTANCE: _Kind("describe_instances", "InstanceIds", "Reservations", "InstanceId", "State"),
}


@dataclass(frozen=True, slots=True)
class Inventory:
    """The resources of the job's account and region."""

    control: AwsControl

    async def get(self, kind: str, object_id: str) -> Resource | None:
        """Return one resource, None if it is gone."""
        how = _KINDS[kind]
        try:
            found = await self._ask(kind, {how.ids: [object_id]})
        except (DiskLost, TargetNotFound):
            return None
        return next((one for one in found if state_of(kind, one) not in _GONE), None)

    async def named(self, kind: str, name: str) -> list[Resource]:
        """Return what carries the tag `Name`; images also what is called so."""
        params: dict[str, Any] = {"Filters": [{"Name": "tag:Name", "Values": [name]}]}
        if kind == SNAPSHOT:
            params["OwnerIds"] = ["self"]
        if kind == IMAGE:
            params = {"Owners": ["self"], "Filters": [{"Name": "name", "Values": [name]}]}
        found = await self._ask(kind, params)
        return [one for one in found if state_of(kind, one) not in _GONE]

    async def of_line(self, intent: Intent, tagger: Tagger) -> Resource | None:
        """Return what this line of jobs made for an intent whose id was not recorded, None if nothing."""
        for one in await self.named(intent.kind, intent.name):
            if tagger.is_this_line(tags_of(one), intent.scope, intent.name):
                return one
        return None

    async def tag(self, object_ids: list[str], tags: dict[str, str]) -> None:
        """Add tags."""
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        await self.control.call("ec2", "create_tags", Resources=object_ids, Tags=pairs)

    async def _ask(self, kind: str, params: dict[str, Any]) -> list[Resource]:
        how = _KINDS[kind]
        answer = await self.control.call("ec2", how.action, **params)
        found: list[Resource] = answer.get(how.answer, [])
        if kind == INSTANCE:
            return [one for reservation in found for one in reservation.get("Instances", [])]
        return found


def state_of(kind: str, resource: Resource) -> str:
    """Return the state that the service gives a resource."""
    state = resource.get(_KINDS[kind].state, "")
    return str(state.get("Name", "")) if isinstance(state, dict) else str(state)


def id_of(kind: str, resource: Resource) -> str:
    """Return a resource's id."""
    return str(resource[_KINDS[kind].id])


def tags_of(resource: Resource) -> dict[str, str]:
    """Return a resource's tags."""
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in resource.get("Tags", [])}


def snapshots_of(image: Resource) -> list[str]:
    """Return the snapshots behind an AMI."""
    mappings = image.get("BlockDeviceMappings", [])
    return [str(m["Ebs"]["SnapshotId"]) for m in mappings if m.get("Ebs", {}).get("SnapshotId")]


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """Return tags as the service takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def specification(resource_type: str, tags: dict[str, str]) -> dict[str, Any]:
    """Return tags that a resource is born with: no moment in which it is nobody's."""
    return {"ResourceType": resource_type, "Tags": tag_list(tags)}
