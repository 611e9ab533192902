"""Which permissions a credential lacks: EC2's dry runs, which create nothing; EBS direct and PassRole have none."""

from typing import Any

from agent.errors import AgentError
from agent.targets.aws.control import AwsControl
from agent.targets.errors import AccessForbidden
from agent.targets.permissions import Role
from protocol.ops import AwsImage

_SNAPSHOT, _IMAGE = "snap-0123456789abcdef0", "ami-0123456789abcdef0"
_INSTANCE, _VOLUME = "i-0123456789abcdef0", "vol-0123456789abcdef0"


async def lacking(
    control: AwsControl, role: Role, ref: AwsImage
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (actions that are denied, actions that cannot be asked for)."""
    tries = _tries(ref)
    missing, unprobed = [], []
    for action in role.all:
        if action not in tries:
            unprobed.append(action)
        elif not await _allowed(control, action, tries[action]):
            missing.append(action)
    if role.passes:
        unprobed.append("iam:PassRole")
    return tuple(missing), tuple(unprobed)


async def _allowed(control: AwsControl, action: str, params: dict[str, Any]) -> bool:
    """Whether a dry run is not refused as unauthorized; that nothing of that id exists is another answer."""
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action[4:])
    try:
        await control.call("ec2", name.lstrip("_"), DryRun=True, **params)
    except AccessForbidden:
        return False
    except AgentError as err:
        if err.retryable or err.code == "transfer.stalled":
            raise
    return True


def _tries(ref: AwsImage) -> dict[str, dict[str, Any]]:
    """Return the parameters that each action is tried with; ids that cannot exist."""
    disk = {"DeviceName": ref.root_device, "Ebs": {"SnapshotId": _SNAPSHOT}}
    tags = [{"Key": "Name", "Value": "imageport"}]
    launch = ref.swap
    return {
        "ec2:CreateTags": {"Resources": [_SNAPSHOT], "Tags": tags},
        "ec2:DeleteSnapshot": {"SnapshotId": _SNAPSHOT},
        "ec2:RegisterImage": {
            "Name": "imageport-dry-run",
            "RootDeviceName": ref.root_device,
            "BlockDeviceMappings": [disk],
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
        },
        "ec2:DeregisterImage": {"ImageId": _IMAGE},
        "ec2:ImportImage": {"DiskContainers": [{"SnapshotId": _SNAPSHOT}], "Platform": "Windows"},
        "ec2:ImportSnapshot": {
            "DiskContainer": {
                "Format": "VMDK",
                "UserBucket": {"S3Bucket": "imageport-dry-run", "S3Key": "imageport-dry-run"},
            }
        },
        "ec2:DescribeImportSnapshotTasks": {},
        "ec2:CancelImportTask": {"ImportTaskId": "import-ami-0123456789abcdef0"},
        "ec2:RunInstances": {
            "ImageId": launch.image if launch else _IMAGE,
            "InstanceType": launch.instance_type if launch else "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            **({"SubnetId": launch.subnet} if launch else {}),
        },
        "ec2:TerminateInstances": {"InstanceIds": [_INSTANCE]},
        "ec2:CreateVolume": {"SnapshotId": _SNAPSHOT, "AvailabilityZone": f"{ref.region}a"},
        "ec2:DeleteVolume": {"VolumeId": _VOLUME},
        "ec2:CreateReplaceRootVolumeTask": {"InstanceId": _INSTANCE, "VolumeId": _VOLUME},
        "ec2:CreateImage": {"InstanceId": _INSTANCE, "Name": "imageport-dry-run"},
        "ec2:DescribeImages": {"Owners": ["self"]},
        "ec2:DescribeSnapshots": {"OwnerIds": ["self"]},
        "ec2:DescribeInstances": {},
        "ec2:DescribeVolumes": {},
        "ec2:DescribeReplaceRootVolumeTasks": {},
        "ec2:DescribeImportImageTasks": {},
    }
