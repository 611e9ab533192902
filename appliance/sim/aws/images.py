"""The EC2 actions on images: register, import, create from an instance, describe, deregister. Knows no HTTP.

What matters here: a snapshot that EBS direct wrote carries no billing code, so an image registered from it is
`Linux/UNIX` whatever is inside; only an import or a licensed instance makes a Windows image ("Understand AMI billing").
"""

import re

from appliance.sim.aws.ec2 import Handler, Readers, filtered, iso
from appliance.sim.aws.query import Tree, need, tag_set, tags_of
from appliance.sim.aws.snapshots import Snapshots
from appliance.sim.aws.state import Image, Instance, Snapshot, Task
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Refusal

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")
BILLING = {
    "RunInstances": "Linux/UNIX",
    "RunInstances:0002": "Windows",
    "RunInstances:0800": "Windows BYOL",
}
_BOOT_MODES = ("", "legacy-bios", "uefi", "uefi-preferred")
_LICENSES = {"AWS": "RunInstances:0002", "BYOL": "RunInstances:0800"}


class Images:
    """All images of the account and AWS' stock ones.

    Args:
        seconds: How long an import, or making an image of an instance, takes.
    """

    def __init__(self, vault: Vault, snapshots: Snapshots, *, seconds: float) -> None:
        self._vault = vault
        self._snapshots = snapshots
        self._seconds = seconds

    def handlers(self) -> dict[str, tuple[set[str], Handler]]:
        """Return the actions."""
        register = {
            "Name", "Architecture", "BlockDeviceMapping", "BootMode", "Description", "EnaSupport",
            "ImdsSupport", "RootDeviceName", "SriovNetSupport", "TagSpecification", "TpmSupport",
            "VirtualizationType", "UefiData",
        }  # fmt: skip
        imported = {
            "Architecture", "BootMode", "ClientToken", "Description", "DiskContainer", "LicenseType",
            "Platform", "RoleName", "TagSpecification", "UsageOperation", "Encrypted", "KmsKeyId",
        }  # fmt: skip
        return {
            "RegisterImage": (register, self._register),
            "DescribeImages": ({"ImageId", "Owner", "Filter", "IncludeDeprecated"}, self._describe),
            "DeregisterImage": ({"ImageId"}, self._deregister),
            "ImportImage": (imported, self._import),
            "DescribeImportImageTasks": ({"ImportTaskId", "Filter", "Filters"}, self._tasks),
            "CancelImportTask": ({"ImportTaskId", "CancelReason"}, self._cancel),
        }

    def from_instance(self, instance: Instance, args: Tree, now: float) -> Tree:
        """Make an image of an instance: its root volume as a new snapshot, its billing code."""
        volume = self._vault.state.volumes[instance.root_volume]
        source = self._vault.state.snapshots[volume.snapshot]
        copy = self._copy(source, instance.billing, tags_of(args, "snapshot"), now)
        image = self._add(
            args,
            now,
            snapshot=copy.id,
            root_device=instance.root_device,
            boot_mode=instance.boot_mode,
            billing=instance.billing,
            ready_at=now + self._seconds,
        )
        image.platform = instance.platform
        image.ena = True
        self._vault.save()
        return {"imageId": image.id}

    def add_stock(self, name: str, *, boot_mode: str, billing: str, now: float) -> Image:
        """Offer one of AWS' own images."""
        snapshot = Snapshot(
            id=self._vault.new_id("snap"), volume_gib=30, started=now, file=self._vault.new_file(),
            state="completed", completed_at=now, licensed=billing,
        )  # fmt: skip
        self._vault.state.snapshots[snapshot.id] = snapshot
        image = self._add(
            {"Name": name}, now, snapshot=snapshot.id, root_device="/dev/sda1",
            boot_mode=boot_mode, billing=billing, ready_at=now,
        )  # fmt: skip
        image.owner = "amazon"
        image.platform = "windows" if "Windows" in image.platform_details else ""
        image.ena = True
        return image

    # --- actions ------------------------------------------------------------------------------------------

    def _register(self, args: Tree, now: float) -> Tree:
        root = need(args, "RootDeviceName")
        mapping = next(
            (m for m in args.get("BlockDeviceMapping", []) if m.get("DeviceName") == root), None
        )
        if mapping is None or not mapping.get("Ebs", {}).get("SnapshotId"):
            message = f"No block device mapping gives {root} a snapshot."
            raise Refusal(400, "InvalidBlockDeviceMapping", message)
        snapshot = self._snapshots.current(mapping["Ebs"]["SnapshotId"], now)
        if snapshot is None:
            raise Refusal(400, "InvalidSnapshot.NotFound", "The snapshot does not exist.")
        if snapshot.state != "completed":
            message = f"Snapshot {snapshot.id} is {snapshot.state}, expected completed."
            raise Refusal(400, "IncorrectState", message)
        if args.get("VirtualizationType") != "hvm" or args.get("Architecture") != "x86_64":
            message = "Defaults are paravirtual and i386, which this region takes no more."
            raise Refusal(400, "InvalidParameterValue", message)
        boot_mode = args.get("BootMode", "")
        tpm = args.get("TpmSupport", "")
        if boot_mode not in _BOOT_MODES or tpm not in ("", "v2.0"):
            raise Refusal(400, "InvalidParameterValue", f"BootMode {boot_mode}, TpmSupport {tpm}.")
        if tpm and boot_mode != "uefi":
            raise Refusal(400, "InvalidParameterCombination", "TpmSupport needs BootMode uefi.")
        image = self._add(
            args, now, snapshot=snapshot.id, root_device=root, boot_mode=boot_mode,
            billing=snapshot.licensed or "RunInstances", ready_at=now,
        )  # fmt: skip
        image.ena = args.get("EnaSupport") == "true"
        image.tpm, image.imds = tpm, args.get("ImdsSupport", "")
        image.volume_type = mapping["Ebs"].get("VolumeType", "")
        self._vault.save()
        return {"imageId": image.id}

    def _describe(self, args: Tree, now: float) -> Tree:
        self._settle(now)
        images = self._vault.state.images
        wanted = args.get("ImageId", [])
        for one in wanted:
            if one not in images:
                message = f"The image id '[{one}]' does not exist"
                raise Refusal(400, "InvalidAMIID.NotFound", message)
        owners = args.get("Owner", [])
        items = [
            self._shown(image, now)
            for image in images.values()
            if (not wanted or image.id in wanted) and (not owners or image.owner in owners)
        ]
        readers: Readers = {
            "name": lambda item: str(item["name"]),
            "state": lambda item: str(item["imageState"]),
            "image-id": lambda item: str(item["imageId"]),
            "block-device-mapping.snapshot-id": lambda item: str(
                item["blockDeviceMapping"][0]["ebs"]["snapshotId"]
            ),
        }
        return {"imagesSet": filtered(items, args, readers)}

    def _deregister(self, args: Tree, _now: float) -> Tree:
        wanted = need(args, "ImageId")
        image = self._vault.state.images.get(wanted)
        if image is None or image.owner != "self":
            message = f"The image id '[{wanted}]' does not exist"
            raise Refusal(400, "InvalidAMIID.NotFound", message)
        del self._vault.state.images[wanted]
        self._vault.save()
        return {"return": True}

    def _import(self, args: Tree, now: float) -> Tree:
        token = args.get("ClientToken", "")
        for task in self._vault.state.tasks.values():
            if token and task.client_token == token:
                return self._task(task)
        containers = need(args, "DiskContainer")
        snapshot = self._snapshots.current(containers[0].get("SnapshotId", ""), now)
        if len(containers) != 1 or snapshot is None or snapshot.state != "completed":
            message = "Only one completed snapshot of this account can be imported here."
            raise Refusal(400, "InvalidParameter", message)
        if args.get("LicenseType") and args.get("UsageOperation"):
            message = "LicenseType and UsageOperation exclude each other."
            raise Refusal(400, "InvalidParameterCombination", message)
        platform, boot_mode = args.get("Platform", ""), args.get("BootMode", "")
        if boot_mode not in ("legacy-bios", "uefi") or (boot_mode == "uefi" and not platform):
            message = f"BootMode {boot_mode!r}, Platform {platform!r}."
            raise Refusal(400, "InvalidParameter", message)
        windows = platform == "Windows"
        license_type = args.get("LicenseType") or ("AWS" if windows else "BYOL")
        usage = args.get("UsageOperation") or (
            _LICENSES.get(license_type, "") if windows else "RunInstances"
        )
        if usage not in BILLING:
            raise Refusal(400, "InvalidParameter", f"License {license_type} {usage}.")
        task = Task(
            id=self._vault.new_id("import-ami"),
            kind="import",
            due=now + self._seconds,
            client_token=token,
            tags=tags_of(args, "import-image-task"),
            facts={
                "snapshot": snapshot.id, "boot_mode": boot_mode, "usage": usage,
                "platform": platform, "license": license_type,
                "description": args.get("Description", ""),
            },
        )  # fmt: skip
        self._vault.state.tasks[task.id] = task
        self._vault.save()
        return self._task(task)

    def _tasks(self, args: Tree, now: float) -> Tree:
        self._settle(now)
        wanted = args.get("ImportTaskId", [])
        tasks = [task for task in self._vault.state.tasks.values() if task.kind == "import"]
        known = {task.id for task in tasks}
        for one in wanted:
            if one not in known:
                raise Refusal(400, "InvalidConversionTaskId.Malformed", f"{one} does not exist.")
        shown = [self._task(task) for task in tasks if not wanted or task.id in wanted]
        return {"importImageTaskSet": shown}

    def _cancel(self, args: Tree, _now: float) -> Tree:
        task = self._vault.state.tasks.get(need(args, "ImportTaskId"))
        if task is None or task.kind not in ("import", "import-snapshot"):
            raise Refusal(400, "InvalidConversionTaskId", "The task does not exist.")
        if task.done:
            raise Refusal(400, "IncorrectState", "The task is completed.")
        task.failed = "cancelled"
        self._vault.save()
        return {"importTaskId": task.id, "state": "deleting", "previousState": "active"}

    # --- records ------------------------------------------------------------------------------------------

    def _add(
        self, args: Tree, now: float, *, snapshot: str, root_device: str, boot_mode: str,
        billing: str, ready_at: float,
    ) -> Image:  # fmt: skip
        name = need(args, "Name")
        if not _NAME.fullmatch(name):
            message = "AMI names must be between 3 and 128 characters long, of allowed letters."
            raise Refusal(400, "InvalidAMIName.Malformed", message)
        taken = [
            i for i in self._vault.state.images.values() if i.name == name and i.owner == "self"
        ]
        if taken:
            message = f"AMI name {name} is already in use by AMI {taken[0].id}"
            raise Refusal(400, "InvalidAMIName.Duplicate", message)
        image = Image(
            id=self._vault.new_id("ami"), name=name, owner="self", created=now, snapshot=snapshot,
            root_device=root_device, boot_mode=boot_mode, platform_details=BILLING[billing],
            usage_operation=billing, description=args.get("Description", ""),
            tags=tags_of(args, "image"), ready_at=ready_at,
        )  # fmt: skip
        self._vault.state.images[image.id] = image
        self._vault.save()
        return image

    def _copy(self, source: Snapshot, billing: str, tags: dict[str, str], now: float) -> Snapshot:
        copy = Snapshot(
            id=self._vault.new_id("snap"), volume_gib=source.volume_gib, started=now,
            file=source.file, state="completed", completed_at=now, licensed=billing, tags=tags,
            encrypted=source.encrypted, kms_key=source.kms_key,
        )  # fmt: skip
        self._vault.state.snapshots[copy.id] = copy
        return copy

    def _settle(self, now: float) -> None:
        for task in list(self._vault.state.tasks.values()):
            if task.kind != "import" or task.done or task.failed or now < task.due:
                continue
            facts = task.facts
            source = self._vault.state.snapshots.get(facts["snapshot"])
            if source is None:
                task.failed = "ClientError: the snapshot is gone"
                continue
            copy = self._copy(source, facts["usage"], {}, now)
            image = self._add(
                {"Name": task.id, "Description": facts["description"]}, now, snapshot=copy.id,
                root_device="/dev/sda1", boot_mode=facts["boot_mode"], billing=facts["usage"],
                ready_at=now,
            )  # fmt: skip
            image.platform = "windows" if facts["platform"] == "Windows" else ""
            facts["image"] = image.id
            facts["copy"] = copy.id
            task.done = True
            self._vault.save()

    def _task(self, task: Task) -> Tree:
        facts = task.facts
        status = "deleted" if task.failed == "cancelled" else "deleted" if task.failed else "active"
        return {
            "importTaskId": task.id,
            "status": "completed" if task.done else status,
            "statusMessage": task.failed or ("" if task.done else "converting"),
            "progress": None if task.done else "28",
            "imageId": facts.get("image"),
            "bootMode": facts["boot_mode"],
            "platform": facts["platform"] or None,
            "licenseType": facts["license"],
            "usageOperation": facts["usage"],
            "snapshotDetailSet": [{"snapshotId": facts["copy"]}] if "copy" in facts else None,
            "tagSet": tag_set(task.tags),
        }

    def _shown(self, image: Image, now: float) -> Tree:
        snapshot = self._vault.state.snapshots.get(image.snapshot)
        ebs = {
            "snapshotId": image.snapshot,
            "volumeSize": snapshot.volume_gib if snapshot else 0,
            "volumeType": image.volume_type or None,
            "encrypted": snapshot.encrypted if snapshot else False,
            "deleteOnTermination": True,
        }
        return {
            "imageId": image.id,
            "name": image.name,
            "description": image.description,
            "imageState": "available" if now >= image.ready_at else "pending",
            "imageOwnerId": self._vault.state.identity.account,
            "architecture": image.architecture,
            "imageType": "machine",
            "isPublic": image.owner == "amazon",
            "rootDeviceType": "ebs",
            "rootDeviceName": image.root_device,
            "virtualizationType": "hvm",
            "enaSupport": image.ena,
            "bootMode": image.boot_mode or None,
            "tpmSupport": image.tpm or None,
            "imdsSupport": image.imds or None,
            "platform": image.platform or None,
            "platformDetails": image.platform_details,
            "usageOperation": image.usage_operation,
            "creationDate": iso(image.created),
            "blockDeviceMapping": [{"deviceName": image.root_device, "ebs": ebs}],
            "tagSet": tag_set(image.tags),
        }
