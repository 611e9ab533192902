"""What becomes of a proven disk: nothing more, a snapshot, or a version of a gallery's image (`gallery`).

Each is made behind the job's point of no return, repeatable after a crash: an intent before the call, the name chosen
before the upload, owner tags on what is made.
"""

from collections.abc import Callable
from typing import Any, Protocol

from agent.errors import Permanent
from agent.targets.azure.arm import API_VERSION, ArmDisks
from agent.targets.azure.diskresource import FINAL, KIND, STATE, protection, tags_of, unique_id
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog
from agent.targets.errors import DiskLost
from agent.targets.naming import Found
from agent.targets.tags import Tagger
from protocol.ops import AzureDisk

SNAPSHOT = "azure.snapshot"
Scope = dict[str, str]


class ResultMissing(Permanent):
    """What the spec asks for does not fit together."""

    code = "azure.result"
    fix = "Set result and gallery in the job's target as docs/jobspec.md has them."


class Result(Protocol):
    """One kind of result."""

    async def prepare(self, spec: DiskSpec, intents: IntentLog | None) -> None:
        """Look, before anything is made, whether it can be made; raises what would stop it."""
        ...

    def known(self, name: str, intents: IntentLog) -> bool:
        """Whether this line recorded an intent for it, under a disk's name."""
        ...

    async def look(self, name: str, tagger: Tagger) -> Found | None:
        """Return what else has a disk's name."""
        ...

    async def is_made(self, name: str, spec: DiskSpec, intents: IntentLog) -> bool:
        """Whether this line made it already."""
        ...

    async def make(self, name: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """Make it of the disk of that name, or find it."""
        ...

    def objects(self, name: str) -> list[str]:
        """Return what would be made, in words for people."""
        ...


class DiskItself:
    """The disk is the result."""

    def __init__(self, arm: Callable[[], ArmDisks]) -> None:
        self._arm = arm

    async def prepare(self, spec: DiskSpec, intents: IntentLog | None) -> None:
        """Nothing is needed."""

    def known(self, name: str, intents: IntentLog) -> bool:  # noqa: ARG002
        """There is nothing else."""
        return False

    async def look(self, name: str, tagger: Tagger) -> Found | None:  # noqa: ARG002
        """There is nothing else."""
        return None

    async def is_made(self, name: str, spec: DiskSpec, intents: IntentLog) -> bool:  # noqa: ARG002
        """There is nothing else."""
        return False

    async def make(self, name: str, spec: DiskSpec, intents: IntentLog) -> Artifact:  # noqa: ARG002
        """It is made."""
        return Artifact(KIND, self._arm().resource_id(name), {})

    def objects(self, name: str) -> list[str]:  # noqa: ARG002
        """There is nothing else."""
        return []


class SnapshotOfDisk:
    """A snapshot of the disk's own name: full content, kept apart from the disk."""

    def __init__(self, ref: AzureDisk, arm: Callable[[], ArmDisks], scope: Scope) -> None:
        self._ref = ref
        self._arm = arm
        self._scope = scope

    async def prepare(self, spec: DiskSpec, intents: IntentLog | None) -> None:
        """Nothing is needed."""

    def known(self, name: str, intents: IntentLog) -> bool:
        """See `Result`."""
        return intents.known(self._intent(name)) is not None

    async def look(self, name: str, tagger: Tagger) -> Found | None:
        """See `Result`."""
        found = await self._get(name)
        if found is None:
            return None
        ours = tagger.read(tags_of(found), self._scope, name) is not None
        return Found(ours, final=True, where=f"snapshot {self._ref.resource_group}/{name}")

    async def is_made(self, name: str, spec: DiskSpec, intents: IntentLog) -> bool:
        """See `Result`."""
        if intents.known(self._intent(name)) is None:
            return False
        found = await self._get(name)
        return found is not None and spec.tagger.is_this_line(tags_of(found), self._scope, name)

    async def make(self, name: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """See `Result`."""
        intent = self._intent(name)
        if not await self.is_made(name, spec, intents):
            await intents.record(intent)
            tags = {**self._ref.tags, **spec.tagger.tags(self._scope, name), STATE: FINAL}
            resource = snapshot_resource(self._ref, self._arm().resource_id(name), tags)
            await self._arm().put(self._path(name), API_VERSION, f"snapshot {name}", resource)
        made = await self._get(name)
        if made is None or not spec.tagger.is_this_line(tags_of(made), self._scope, name):
            msg = f"snapshot {name} is not the one that this job made"
            raise DiskLost(msg, name=name)
        await intents.created(intent, unique_id(made))
        return Artifact(SNAPSHOT, self._path(name), {"unique_id": unique_id(made)})

    def objects(self, name: str) -> list[str]:
        """See `Result`."""
        return [f"snapshot {self._ref.resource_group}/{name} ({snapshot_sku(self._ref)})"]

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """See `DiskTarget`."""
        found = await self._get(intent.name)
        if found is None:
            return None
        where = f"snapshot {self._ref.resource_group}/{intent.name}"
        if not tagger.is_this_line(tags_of(found), self._scope, intent.name):
            return f"{where} carries another owner tag"
        if object_id and unique_id(found) != object_id:
            return f"{where} is another snapshot than the one created"
        await self._arm().remove(self._path(intent.name), API_VERSION, where)
        return None

    async def _get(self, name: str) -> dict[str, Any] | None:
        return await self._arm().fetch(self._path(name), API_VERSION, f"snapshot {name}")

    def _path(self, name: str) -> str:
        return f"{self._arm().group}/providers/Microsoft.Compute/snapshots/{name}"

    def _intent(self, name: str) -> Intent:
        return Intent(SNAPSHOT, self._scope, name)


def snapshot_sku(ref: AzureDisk) -> str:
    """Return the cheapest snapshot that survives what the disk survives."""
    return "Standard_ZRS" if ref.sku.endswith("_ZRS") else "Standard_LRS"


def snapshot_resource(ref: AzureDisk, source: str, tags: dict[str, str]) -> dict[str, Any]:
    """Return the body of a PUT (REST reference of Snapshots, 2023-10-02); what the disk is, the snapshot stays.

    Not the security type: a snapshot has its disk's by itself (azure-powershell 24242), and a copy that names one is
    refused (azure-cli 22561).
    """
    properties: dict[str, Any] = {
        "osType": ref.os_type,
        "hyperVGeneration": ref.generation,
        "incremental": True,
        "creationData": {"createOption": "Copy", "sourceResourceId": source},
        **protection(ref),
    }
    return {
        "location": ref.location,
        "sku": {"name": snapshot_sku(ref)},
        "tags": tags,
        "properties": properties,
    }
