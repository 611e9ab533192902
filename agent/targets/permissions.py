"""What each cloud has to allow for each purpose: the least role, as data. Sends nothing.

Not written from memory: tests/e2e/test_permissions.py runs every target with exactly these against its simulator, and
again without each single one, which has to fail and name it.
"""

from dataclasses import dataclass

AWS_STRATEGIES = ("register-image", "import-image", "instance-swap", "snapshot-only")
AWS_TARGETS = ("aws-snapshot", "aws-s3")
OBJECT_ONLY = "object-only"
PURPOSES = ("upload",)
CLOUDS = ("azure", "aws", "gcp")

_AWS_SNAPSHOT = (
    "ebs:StartSnapshot",
    "ebs:PutSnapshotBlock",
    "ebs:CompleteSnapshot",
    "ebs:ListSnapshotBlocks",
    "ebs:GetSnapshotBlock",
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeSnapshots",
)
_AWS_S3 = (
    "s3:GetObject",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:PutObject",
)
_AWS_S3_IMPORT = (
    "s3:DeleteObject",
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeImportSnapshotTasks",
    "ec2:DescribeSnapshots",
    "ec2:ImportSnapshot",
)
_AWS_S3_UNDO = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListMultipartUploadParts")
_AWS_IMAGE = {
    "register-image": ("ec2:RegisterImage",),
    "import-image": ("ec2:ImportImage", "ec2:DescribeImportImageTasks"),
    "instance-swap": (
        "ec2:RunInstances",
        "ec2:DescribeInstances",
        "ec2:TerminateInstances",
        "ec2:CreateVolume",
        "ec2:DescribeVolumes",
        "ec2:CreateReplaceRootVolumeTask",
        "ec2:DescribeReplaceRootVolumeTasks",
        "ec2:CreateImage",
    ),
    "snapshot-only": (),
}
_AWS_UNDO = {
    "register-image": ("ec2:DeregisterImage",),
    "import-image": ("ec2:DeregisterImage", "ec2:CancelImportTask"),
    "instance-swap": ("ec2:DeregisterImage", "ec2:DeleteVolume"),
    "snapshot-only": (),
}


@dataclass(frozen=True, slots=True)
class Role:
    """What a principal may do.

    Attributes:
        cloud: Whose names these are.
        needed: Used by every upload that goes well.
        undo: Used to take back what a cancelled or failed job made, and by `sweep`.
        passes: AWS: the service role that may be handed over ("vmimport"), "" for none.
    """

    cloud: str
    needed: tuple[str, ...]
    undo: tuple[str, ...]
    passes: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Both, sorted."""
        return tuple(sorted({*self.needed, *self.undo}))


AZURE_DISK = Role(
    "azure",
    needed=(
        "Microsoft.Compute/disks/beginGetAccess/action",
        "Microsoft.Compute/disks/endGetAccess/action",
        "Microsoft.Compute/disks/read",
        "Microsoft.Compute/disks/write",
        "Microsoft.Compute/locations/diskOperations/read",
    ),
    undo=("Microsoft.Compute/disks/delete",),
)
_AZURE_RESULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "disk": ((), ()),
    "snapshot": (
        (
            "Microsoft.Compute/disks/delete",
            "Microsoft.Compute/snapshots/read",
            "Microsoft.Compute/snapshots/write",
        ),
        ("Microsoft.Compute/snapshots/delete",),
    ),
    "image-version": (
        (
            "Microsoft.Compute/disks/delete",
            "Microsoft.Compute/galleries/images/read",
            "Microsoft.Compute/galleries/images/versions/read",
            "Microsoft.Compute/galleries/images/versions/write",
            "Microsoft.Compute/galleries/images/write",
            "Microsoft.Compute/galleries/read",
            "Microsoft.Compute/locations/capsOperations/read",
        ),
        (
            "Microsoft.Compute/galleries/images/delete",
            "Microsoft.Compute/galleries/images/versions/delete",
        ),
    ),
}
"""result -> what it needs beside the disk, and to take it back."""
AZURE_RESULTS = tuple(_AZURE_RESULTS)
GCP_UPLOADS = ("parallel", "resumable")
_GCP_IMAGE = (
    "compute.globalOperations.get",
    "compute.images.create",
    "compute.images.get",
    "compute.images.setLabels",
    "storage.buckets.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
)
_GCP_PARTS = ("storage.multipartUploads.create", "storage.multipartUploads.list")
_GCP_PARTS_UNDO = ("storage.multipartUploads.abort", "storage.multipartUploads.listParts")


def gcp_role(upload: str) -> Role:
    """Return what `gcp-image` needs for a way of uploading."""
    parts = upload == "parallel"
    needed = (*_GCP_IMAGE, *(_GCP_PARTS if parts else ()))
    undo = ("compute.images.delete", *(_GCP_PARTS_UNDO if parts else ()))
    return Role("gcp", tuple(sorted(needed)), undo)


def azure_role(result: str) -> Role:
    """Return what `azure-disk` needs for a result."""
    needed, undo = _AZURE_RESULTS[result]
    all_needed = {*AZURE_DISK.needed, *needed}
    return Role(
        "azure", tuple(sorted(all_needed)), tuple(sorted({*AZURE_DISK.undo, *undo} - all_needed))
    )


def aws_role(strategy: str) -> Role:
    """Return what `aws-snapshot` needs with a strategy; all strategies together for ""."""
    names = (strategy,) if strategy else AWS_STRATEGIES
    needed = {*_AWS_SNAPSHOT, *(action for name in names for action in _AWS_IMAGE[name])}
    undo = {"ec2:DeleteSnapshot", *(action for name in names for action in _AWS_UNDO[name])}
    passes = "vmimport" if "import-image" in names else ""
    return Role("aws", tuple(sorted(needed)), tuple(sorted(undo)), passes)


def aws_s3_role(strategy: str) -> Role:
    """Return what `aws-s3` needs with a strategy; all strategies together for ""."""
    if strategy == OBJECT_ONLY:
        return Role("aws", _AWS_S3, _AWS_S3_UNDO)
    images = aws_role(strategy)
    direct = set(_AWS_SNAPSHOT) - set(_AWS_S3_IMPORT)
    needed = {*_AWS_S3, *_AWS_S3_IMPORT, *(set(images.needed) - direct)}
    undo = {"ec2:CancelImportTask", *_AWS_S3_UNDO, *images.undo} - needed
    return Role("aws", tuple(sorted(needed)), tuple(sorted(undo)), "vmimport")


def role_of(
    cloud: str, *, strategy: str = "", target: str = "", result: str = "", upload: str = ""
) -> Role:
    """Return the role for uploads to a cloud.

    Args:
        cloud: One of CLOUDS.
        strategy: Of AWS; "" for all of them.
        target: Of AWS_TARGETS, "" for the first.
        result: Of AZURE_RESULTS, "" for the first.
        upload: Of GCP_UPLOADS, "" for the first.
    """
    if cloud == "azure":
        return azure_role(result or AZURE_RESULTS[0])
    if cloud == "gcp":
        return gcp_role(upload or GCP_UPLOADS[0])
    return aws_s3_role(strategy) if target == "aws-s3" else aws_role(strategy)
