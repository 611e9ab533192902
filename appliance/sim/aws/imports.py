"""The EC2 actions of VM Import on snapshots: a VMDK in a bucket becomes an EBS snapshot. Knows no HTTP.

"VM Import/Export requirements": a VMDK has to be stream-optimized. The image is read by the library's own reader, which
qemu-img, libvhdi and dissect judge elsewhere; what it refuses ends the task as on the real service.
"""

from contextlib import closing
from pathlib import Path

from appliance.sim.aws.ec2 import Handler, filtered
from appliance.sim.aws.query import Tree, need, tag_set, tags_of
from appliance.sim.aws.state import Snapshot, Task
from appliance.sim.aws.vault import BLOCK, GIB, Vault
from appliance.sim.call import Refusal
from appliance.sim.objects.shelf import Shelf
from imaging.errors import ImagingError
from imaging.filedev import FileDevice
from imaging.formats import open_image

KIND = "import-snapshot"
SUBFORMAT = "streamOptimized"


class Imports:
    """All imports of snapshots.

    Args:
        seconds: How long one takes.
    """

    def __init__(self, vault: Vault, shelf: Shelf, *, seconds: float) -> None:
        self._vault = vault
        self._shelf = shelf
        self._seconds = seconds

    def handlers(self) -> dict[str, tuple[set[str], Handler]]:
        """Return the actions."""
        asked = {
            "ClientToken", "Description", "DiskContainer", "RoleName", "TagSpecification",
            "Encrypted", "KmsKeyId",
        }  # fmt: skip
        return {
            "ImportSnapshot": (asked, self._import),
            "DescribeImportSnapshotTasks": ({"ImportTaskId", "Filter"}, self._describe),
        }

    def _import(self, args: Tree, now: float) -> Tree:
        token = args.get("ClientToken", "")
        for task in self._vault.state.tasks.values():
            if token and task.kind == KIND and task.client_token == token:
                return self._shown(task)
        container = need(args, "DiskContainer")
        place = container.get("UserBucket", {})
        bucket, key = place.get("S3Bucket", ""), place.get("S3Key", "")
        if container.get("Format", "").upper() != "VMDK":
            message = f"The format {container.get('Format')!r} is not simulated."
            raise Refusal(400, "InvalidParameter", message)
        if args.get("KmsKeyId") and args.get("Encrypted") != "true":
            raise Refusal(400, "InvalidParameterCombination", "KmsKeyId needs Encrypted.")
        task = Task(
            id=self._vault.new_id("import-snap"),
            kind=KIND,
            due=now + self._seconds,
            client_token=token,
            tags=tags_of(args, "import-snapshot-task"),
            facts={
                "bucket": bucket, "key": key, "description": args.get("Description", ""),
                "encrypted": args.get("Encrypted", ""), "kms_key": args.get("KmsKeyId", ""),
            },
        )  # fmt: skip
        self._vault.state.tasks[task.id] = task
        self._vault.save()
        return self._shown(task)

    def _describe(self, args: Tree, now: float) -> Tree:
        tasks = [task for task in self._vault.state.tasks.values() if task.kind == KIND]
        wanted = args.get("ImportTaskId", [])
        for one in wanted:
            if one not in {task.id for task in tasks}:
                raise Refusal(400, "InvalidConversionTaskId.Malformed", f"{one} does not exist.")
        for task in tasks:
            if not task.done and not task.failed and now >= task.due:
                self._settle(task, now)
        shown = [self._shown(task) for task in tasks if not wanted or task.id in wanted]
        return {"importSnapshotTaskSet": filtered(shown, args, {})}

    def _settle(self, task: Task, now: float) -> None:
        facts = task.facts
        found = self._shelf.state.objects.get(f"{facts['bucket']}/{facts['key']}")
        if found is None:
            task.failed = "ClientError: Disk validation failed [the object does not exist]"
            self._vault.save()
            return
        path = self._shelf.directory / f"{task.id}.vmdk"
        try:
            with path.open("wb") as file:
                for piece in self._shelf.read(found, 0, found.size):
                    file.write(piece)
            facts["snapshot"] = self._snapshot(task, path, now)
            task.done = True
        except ImagingError as err:
            task.failed = f"ClientError: Disk validation failed [{err}]"
        finally:
            path.unlink(missing_ok=True)
        self._vault.save()

    def _snapshot(self, task: Task, path: Path, now: float) -> str:
        with closing(FileDevice(path)) as file:
            image = open_image(file, format="vmdk", name=path.name)
            if image.info.subformat != SUBFORMAT:
                raise ImagingError(f"a VMDK of kind {image.info.subformat}, not {SUBFORMAT}")
            made = Snapshot(
                id=self._vault.new_id("snap"), volume_gib=-(-image.size // GIB), started=now,
                file=self._vault.new_file(), state="completed", completed_at=now,
                description=task.facts["description"],
                encrypted=task.facts["encrypted"] == "true" or self._vault.state.encrypted_by_default,
                kms_key=task.facts["kms_key"],
            )  # fmt: skip
            data = self._vault.data(made)
            buffer = bytearray(BLOCK)
            for offset in range(0, image.size, BLOCK):
                length = min(BLOCK, image.size - offset)
                if any(extent.is_data for extent in image.extents(offset, length)):
                    image.read_into(offset, memoryview(buffer)[:length])
                    data.file.write(offset, [bytes(buffer[:length]) + bytes(BLOCK - length)])
        self._vault.state.snapshots[made.id] = made
        return made.id

    def _shown(self, task: Task) -> Tree:
        facts = task.facts
        status = "completed" if task.done else "deleted" if task.failed else "active"
        detail = {
            "status": status,
            "statusMessage": task.failed or (None if task.done else "pending"),
            "snapshotId": facts.get("snapshot"),
            "format": "VMDK",
            "userBucket": {"s3Bucket": facts["bucket"], "s3Key": facts["key"]},
        }
        return {
            "importTaskId": task.id,
            "description": facts["description"],
            "snapshotTaskDetail": detail,
            "tagSet": tag_set(task.tags),
        }
