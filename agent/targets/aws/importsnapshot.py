"""VM Import's ImportSnapshot: a snapshot of the VMDK in a bucket. It converts nothing inside the guest.

Repeatable by its ClientToken; the task carries the owner tags, so a snapshot whose making nobody waited for is found
again through it. The role `vmimport` (or the job's own) has to be able to read the bucket.
"""

import hashlib
from typing import Any

from agent.targets.aws.building import ImportFailed, begun, wait_for
from agent.targets.aws.control import AwsControl
from agent.targets.aws.inventory import (
    FINAL,
    SNAPSHOT,
    STATE,
    Inventory,
    Scope,
    specification,
    tags_of,
)
from agent.targets.base import DiskSpec, Intent, IntentLog
from agent.targets.errors import DiskLost, TargetNotFound, TargetRefused
from agent.targets.tags import Tagger
from protocol.ops import AwsS3

TASK = "aws.import-snapshot-task"


async def import_snapshot(
    control: AwsControl,
    ref: AwsS3,
    key: str,
    name: str,
    scope: Scope,
    *,
    token: str,
    spec: DiskSpec,
    intents: IntentLog,
) -> str:
    """Return the id of the completed snapshot of an object, made now or by an earlier attempt.

    Raises:
        ImportFailed: VM Import refused the disk.
    """
    inventory = Inventory(control)
    task, snapshot = Intent(TASK, scope, name), Intent(SNAPSHOT, scope, name)
    known = intents.known(snapshot)
    if known and await inventory.get(SNAPSHOT, known) is not None:
        return known
    owner = spec.tagger.tags(scope, name)
    request: dict[str, Any] = {
        "Description": f"imageport {name}",
        "DiskContainer": {
            "Format": "VMDK",
            "UserBucket": {"S3Bucket": ref.bucket, "S3Key": key},
        },
        "RoleName": ref.import_role,
        "TagSpecifications": [specification("import-snapshot-task", {"Name": name, **owner})],
    }
    if ref.encrypted or ref.kms_key:
        request["Encrypted"] = True
    if ref.kms_key:
        request["KmsKeyId"] = ref.kms_key

    async def begin(before: str) -> str:
        request["ClientToken"] = hashlib.sha256(f"{token}/{before}".encode()).hexdigest()[:60]
        answer = await control.call("ec2", "import_snapshot", needs=("ImportTaskId",), **request)
        return str(answer["ImportTaskId"])

    async def has_failed(task: str) -> bool:
        return _failed(await _detail(control, task))

    task_id = await begun(intents, task, failed=has_failed, begin=begin)

    async def look() -> str | None:
        detail = await _detail(control, task_id)
        if _failed(detail):
            msg = f"{task_id} was ended: {detail.get('StatusMessage', 'no reason given')}"
            raise ImportFailed(msg, task=task_id)
        done = detail.get("Status") == "completed" and detail.get("SnapshotId")
        return str(detail["SnapshotId"]) if done else None

    made: str = await wait_for(look)
    await intents.record(snapshot)
    await inventory.tag([made], {**ref.tags, "Name": name, **owner, STATE: FINAL})
    await intents.created(snapshot, made)  # tagged: whoever knows the id can prove whose it is
    await intents.removed(task)  # it ended
    return made


async def discard_task(
    control: AwsControl, intent: Intent, task_id: str, tagger: Tagger
) -> str | None:
    """End an import, and delete the snapshot that it made if nobody took it over; None when nothing is left."""
    task = await _task(control, task_id) if task_id else await _task_of(control, intent, tagger)
    if not task:
        return None
    task_id = str(task.get("ImportTaskId", task_id))
    if not tagger.is_this_line(tags_of(task), intent.scope, intent.name):
        return f"import task {task_id} carries another owner tag"
    detail = task.get("SnapshotTaskDetail", {})
    if detail.get("Status") == "completed":
        try:
            await control.call("ec2", "delete_snapshot", SnapshotId=str(detail["SnapshotId"]))
        except (DiskLost, TargetNotFound):
            return None
    elif not _failed(detail):
        try:
            await control.call("ec2", "cancel_import_task", ImportTaskId=task_id)
        except TargetRefused as err:
            return f"import task {task_id} could not be ended: {err}"
    return None


async def _detail(control: AwsControl, task_id: str) -> dict[str, Any]:
    detail: dict[str, Any] = (await _task(control, task_id)).get("SnapshotTaskDetail", {})
    return detail


def _failed(detail: dict[str, Any]) -> bool:
    return detail.get("Status") in ("deleted", "deleting", "error")


async def _task(control: AwsControl, task_id: str) -> dict[str, Any]:
    answer = await control.call("ec2", "describe_import_snapshot_tasks", ImportTaskIds=[task_id])
    return next(iter(answer.get("ImportSnapshotTasks", [])), {})


async def _task_of(control: AwsControl, intent: Intent, tagger: Tagger) -> dict[str, Any]:
    """Return the task that this line began and whose id was not recorded."""
    answer = await control.call("ec2", "describe_import_snapshot_tasks")
    return next(
        (
            task
            for task in answer.get("ImportSnapshotTasks", [])
            if tagger.is_this_line(tags_of(task), intent.scope, intent.name)
        ),
        {},
    )
