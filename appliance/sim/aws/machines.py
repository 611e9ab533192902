"""The EC2 actions on volumes and instances, as far as replacing a root volume needs them. Knows no HTTP."""

from appliance.sim.aws.ec2 import Handler, Readers, filtered, iso
from appliance.sim.aws.images import Images
from appliance.sim.aws.query import Tree, need, tag_set, tags_of
from appliance.sim.aws.state import Instance, Task, Volume
from appliance.sim.aws.vault import Vault
from appliance.sim.call import Refusal

SUBNET = "subnet-0a1b2c3d4e5f60718"


class Machines:
    """All volumes and instances of the account.

    Args:
        seconds: How long replacing a root volume takes.
    """

    def __init__(self, vault: Vault, images: Images, *, seconds: float) -> None:
        self._vault = vault
        self._images = images
        self._seconds = seconds

    @property
    def zone(self) -> str:
        """The one availability zone."""
        return f"{self._vault.state.identity.region}a"

    def handlers(self) -> dict[str, tuple[set[str], Handler]]:
        """Return the actions."""
        run = {
            "ImageId", "InstanceType", "MinCount", "MaxCount", "SubnetId", "SecurityGroupId",
            "ClientToken", "TagSpecification", "MetadataOptions", "InstanceInitiatedShutdownBehavior",
        }  # fmt: skip
        replace = {
            "InstanceId",
            "VolumeId",
            "ClientToken",
            "DeleteReplacedRootVolume",
            "TagSpecification",
        }
        create = {"InstanceId", "Name", "Description", "NoReboot", "TagSpecification"}
        volume = {"SnapshotId", "AvailabilityZone", "VolumeType", "ClientToken", "TagSpecification"}
        return {
            "CreateVolume": (volume, self._create_volume),
            "DescribeVolumes": ({"VolumeId", "Filter"}, self._describe_volumes),
            "DeleteVolume": ({"VolumeId"}, self._delete_volume),
            "RunInstances": (run, self._run),
            "DescribeInstances": ({"InstanceId", "Filter"}, self._describe),
            "TerminateInstances": ({"InstanceId"}, self._terminate),
            "CreateReplaceRootVolumeTask": (replace, self._replace),
            "DescribeReplaceRootVolumeTasks": ({"ReplaceRootVolumeTaskId", "Filter"}, self._tasks),
            "CreateImage": (create, self._create_image),
        }

    # --- volumes ------------------------------------------------------------------------------------------

    def _create_volume(self, args: Tree, now: float) -> Tree:
        token = args.get("ClientToken", "")
        for known in self._vault.state.volumes.values():
            if token and known.client_token == token:
                return self._volume(known)
        snapshot = self._vault.state.snapshots.get(need(args, "SnapshotId"))
        if snapshot is None or snapshot.state != "completed":
            raise Refusal(400, "InvalidSnapshot.NotFound", "The snapshot does not exist.")
        if need(args, "AvailabilityZone") != self.zone:
            message = f"The zone {args['AvailabilityZone']} does not exist."
            raise Refusal(400, "InvalidZone.NotFound", message)
        volume = Volume(
            id=self._vault.new_id("vol"), snapshot=snapshot.id, zone=self.zone,
            gib=snapshot.volume_gib, encrypted=snapshot.encrypted, created=now,
            client_token=token, licensed=snapshot.licensed, tags=tags_of(args, "volume"),
        )  # fmt: skip
        self._vault.state.volumes[volume.id] = volume
        self._vault.save()
        return self._volume(volume)

    def _describe_volumes(self, args: Tree, _now: float) -> Tree:
        wanted = args.get("VolumeId", [])
        for one in wanted:
            self._must_volume(one)
        volumes = self._vault.state.volumes.values()
        items = [self._volume(v) for v in volumes if not wanted or v.id in wanted]
        return {"volumeSet": filtered(items, args, {"status": lambda item: str(item["status"])})}

    def _delete_volume(self, args: Tree, _now: float) -> Tree:
        volume = self._must_volume(need(args, "VolumeId"))
        if volume.instance:
            message = f"Volume {volume.id} is currently attached to {volume.instance}"
            raise Refusal(400, "VolumeInUse", message)
        del self._vault.state.volumes[volume.id]
        self._vault.save()
        return {"return": True}

    def _must_volume(self, wanted: str) -> Volume:
        volume = self._vault.state.volumes.get(wanted)
        if volume is None:
            raise Refusal(400, "InvalidVolume.NotFound", f"The volume '{wanted}' does not exist.")
        return volume

    def _volume(self, volume: Volume) -> Tree:
        attachment = {"instanceId": volume.instance, "volumeId": volume.id, "status": "attached"}
        return {
            "volumeId": volume.id,
            "snapshotId": volume.snapshot,
            "size": volume.gib,
            "availabilityZone": volume.zone,
            "status": "in-use" if volume.instance else "available",
            "encrypted": volume.encrypted,
            "createTime": iso(volume.created),
            "attachmentSet": [attachment] if volume.instance else [],
            "tagSet": tag_set(volume.tags),
        }

    # --- instances ----------------------------------------------------------------------------------------

    def _run(self, args: Tree, now: float) -> Tree:
        token = args.get("ClientToken", "")
        for known in self._vault.state.instances.values():
            if token and known.client_token == token:
                return {"reservationId": "r-1", "instancesSet": [self._instance(known)]}
        image = self._vault.state.images.get(need(args, "ImageId"))
        if image is None:
            raise Refusal(400, "InvalidAMIID.NotFound", "The image id does not exist")
        if args.get("SubnetId", SUBNET) != SUBNET:
            message = f"The subnet ID '{args['SubnetId']}' does not exist"
            raise Refusal(400, "InvalidSubnetID.NotFound", message)
        if (args.get("MinCount"), args.get("MaxCount")) != ("1", "1"):
            raise Refusal(400, "InvalidParameterValue", "MinCount and MaxCount must be 1 here.")
        snapshot = self._vault.state.snapshots[image.snapshot]
        root = Volume(
            id=self._vault.new_id("vol"), snapshot=snapshot.id, zone=self.zone,
            gib=snapshot.volume_gib, encrypted=snapshot.encrypted, created=now,
            licensed=image.usage_operation, tags=tags_of(args, "volume"),
        )  # fmt: skip
        instance = Instance(
            id=self._vault.new_id("i"), image=image.id, kind=args.get("InstanceType", "m1.small"),
            subnet=SUBNET, zone=self.zone, root_device=image.root_device, root_volume=root.id,
            boot_mode=image.boot_mode, billing=image.usage_operation, launched=now,
            platform=image.platform, client_token=token, tags=tags_of(args, "instance"),
        )  # fmt: skip
        root.instance = instance.id
        self._vault.state.volumes[root.id] = root
        self._vault.state.instances[instance.id] = instance
        self._vault.save()
        return {"reservationId": "r-1", "instancesSet": [self._instance(instance)]}

    def _describe(self, args: Tree, _now: float) -> Tree:
        wanted = args.get("InstanceId", [])
        for one in wanted:
            self._must(one)
        instances = self._vault.state.instances.values()
        items = [self._instance(i) for i in instances if not wanted or i.id in wanted]
        readers: Readers = {"instance-state-name": lambda item: str(item["instanceState"]["name"])}
        found = filtered(items, args, readers)
        return {
            "reservationSet": [{"reservationId": "r-1", "instancesSet": found}] if found else []
        }

    def _terminate(self, args: Tree, _now: float) -> Tree:
        ended = []
        for wanted in need(args, "InstanceId"):
            instance = self._must(wanted)
            instance.state = "terminated"
            root = self._vault.state.volumes.get(instance.root_volume)
            if root is not None:  # DeleteOnTermination of a root volume
                del self._vault.state.volumes[root.id]
            ended.append({"instanceId": wanted, "currentState": {"code": 48, "name": "terminated"}})
        self._vault.save()
        return {"instancesSet": ended}

    def _must(self, wanted: str) -> Instance:
        instance = self._vault.state.instances.get(wanted)
        if instance is None:
            message = f"The instance ID '{wanted}' does not exist"
            raise Refusal(400, "InvalidInstanceID.NotFound", message)
        return instance

    def _instance(self, instance: Instance) -> Tree:
        codes = {"running": 16, "terminated": 48}
        root = {"volumeId": instance.root_volume, "status": "attached", "deleteOnTermination": True}
        return {
            "instanceId": instance.id,
            "imageId": instance.image,
            "instanceState": {"code": codes[instance.state], "name": instance.state},
            "instanceType": instance.kind,
            "launchTime": iso(instance.launched),
            "placement": {"availabilityZone": instance.zone},
            "subnetId": instance.subnet,
            "platform": instance.platform or None,
            "platformDetails": "Windows" if instance.platform else "Linux/UNIX",
            "usageOperation": instance.billing,
            "bootMode": instance.boot_mode or None,
            "rootDeviceName": instance.root_device,
            "blockDeviceMapping": [{"deviceName": instance.root_device, "ebs": root}],
            "tagSet": tag_set(instance.tags),
        }

    # --- replacing a root volume --------------------------------------------------------------------------

    def _replace(self, args: Tree, now: float) -> Tree:
        token = args.get("ClientToken", "")
        for task in self._vault.state.tasks.values():
            if token and task.client_token == token:
                return {"replaceRootVolumeTask": self._task(task)}
        instance = self._must(need(args, "InstanceId"))
        volume = self._must_volume(need(args, "VolumeId"))
        old = self._must_volume(instance.root_volume)
        if instance.state != "running" or volume.instance or volume.zone != instance.zone:
            message = "The instance must run; the volume must be available and in its zone."
            raise Refusal(400, "IncorrectState", message)
        if old.encrypted and not volume.encrypted:
            raise Refusal(400, "InvalidParameterValue", "The replacement must be encrypted too.")
        task = Task(
            id=self._vault.new_id("replacevol"), kind="replace", due=now + self._seconds,
            client_token=token, tags=tags_of(args, "replace-root-volume-task"),
            facts={"instance": instance.id, "volume": volume.id, "old": old.id,
                   "delete": args.get("DeleteReplacedRootVolume", "false")},
        )  # fmt: skip
        self._vault.state.tasks[task.id] = task
        self._vault.save()
        return {"replaceRootVolumeTask": self._task(task)}

    def _tasks(self, args: Tree, now: float) -> Tree:
        wanted = args.get("ReplaceRootVolumeTaskId", [])
        tasks = [t for t in self._vault.state.tasks.values() if t.kind == "replace"]
        for task in tasks:
            if not task.done and now >= task.due:
                self._swap(task)
        shown = [self._task(task) for task in tasks if not wanted or task.id in wanted]
        return {"replaceRootVolumeTaskSet": shown}

    def _swap(self, task: Task) -> None:
        state, facts = self._vault.state, task.facts
        instance, volume = state.instances[facts["instance"]], state.volumes.get(facts["volume"])
        old = state.volumes.get(facts["old"])
        if volume is None or old is None or instance.state != "running":
            task.done, task.failed = True, "failed"
            return
        old.instance, volume.instance = "", instance.id
        instance.root_volume = volume.id
        if facts["delete"] == "true":
            del state.volumes[old.id]
        task.done = True
        self._vault.save()

    def _task(self, task: Task) -> Tree:
        return {
            "replaceRootVolumeTaskId": task.id,
            "instanceId": task.facts["instance"],
            "taskState": task.failed or ("succeeded" if task.done else "in-progress"),
            "startTime": "2026-01-01T00:00:00Z",
            "deleteReplacedRootVolume": task.facts["delete"] == "true",
            "tagSet": tag_set(task.tags),
        }

    def _create_image(self, args: Tree, now: float) -> Tree:
        instance = self._must(need(args, "InstanceId"))
        if instance.state != "running":
            raise Refusal(400, "IncorrectState", f"The instance is {instance.state}.")
        return self._images.from_instance(instance, args, now)
