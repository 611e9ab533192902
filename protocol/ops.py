"""The arguments of every op, typed: what a command orders. Values only.

`Command.op` + `Command.args_v` name the struct, `Command.args` is its msgpack map. Secrets are `Sealed` fields; their
field path (as `SealScope.path` takes it) is written beside each.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

from protocol.codec import decode
from protocol.errors import BadField
from protocol.ids import Bytes16, Digest, IdText
from protocol.messages import MAX_COMMAND, Layout
from protocol.sealing import Sealed

Host = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:\[\]-]{1,255}\Z")]
SharePath = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Plain = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@]{1,1024}\Z")]

IfExists = Literal["fail", "resume", "replace", "new-version"]
Verify = Literal["full", "sample", "none"]


class SmbShare(Layout, frozen=True, kw_only=True, tag_field="kind", tag="smb"):
    """An SMB 3 share. Secret "source.credential": msgpack {username, password, domain?}."""

    server: Host
    share: Annotated[str, msgspec.Meta(pattern=r"^[^\\/:*?\"<>|\x00-\x1f]{1,80}\Z")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 445
    folder: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    credential: Sealed | None = None


class LocalShare(Layout, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """A folder that the appliance's own configuration names (`shares.local.<name>`), never a free path."""

    name: IdText


ShareRef: TypeAlias = SmbShare | LocalShare


class LocalTarget(Layout, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """A folder that the appliance's configuration names (`targets.local.<name>`): the reference target."""

    name: IdText
    disk: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")]


class AzurePageBlob(Layout, frozen=True, kw_only=True, tag_field="kind", tag="azure-page-blob"):
    """A page blob as fixed VHD. Secret "target.credential": msgpack {account_key} or {sas} or
    {tenant_id, client_id, client_secret}. `endpoint` is the account's blob endpoint.
    """

    endpoint: Url
    container: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}\Z")]
    blob: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}\Z")]
    credential: Sealed | None = None


ArmId = Annotated[str, msgspec.Meta(pattern=r"^/subscriptions/[^\s?#]{1,1000}\Z")]


class AzureGallery(Layout, frozen=True, kw_only=True):
    """Which version of which image definition of a Compute Gallery the disk becomes; the gallery has to be there."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._]{0,78}[A-Za-z0-9])?\Z")]
    image: Annotated[
        str, msgspec.Meta(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?\Z")
    ]
    version: Annotated[
        str, msgspec.Meta(pattern=r"^(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){2}\Z")
    ]
    os_state: Literal["Specialized", "Generalized"] = "Specialized"
    publisher: Plain = "imageport"
    offer: Plain = "golden"
    sku: Plain | None = None
    """These three name a definition that has to be made; no sku: the image's name."""
    regions: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,64}\Z")], ...],
        msgspec.Meta(max_length=50),
    ] = ()
    """Beside the disk's own."""
    replicas: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    storage: Literal["Standard_LRS", "Standard_ZRS", "Premium_LRS"] = "Standard_LRS"


class AzureDisk(Layout, frozen=True, kw_only=True, tag_field="kind", tag="azure-disk"):
    """A managed disk by direct upload, or what is made of it. Secret "target.credential": msgpack {tenant_id,
    client_id} with client_secret or certificate (PEM, key included), or {managed_identity}, or {workload_identity}.

    `management` is the ARM endpoint, `authority` the token endpoint; both follow from `cloud` unless given, and only
    endpoints that the appliance's configuration allows are used.
    """

    subscription: Plain
    resource_group: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._()-]{1,90}\Z")]
    location: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,64}\Z")]
    disk: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")]
    os_type: Literal["Windows", "Linux"] = "Windows"
    generation: Literal["V1", "V2"] = "V2"
    sku: Literal[
        "Standard_LRS", "StandardSSD_LRS", "Premium_LRS", "StandardSSD_ZRS", "Premium_ZRS"
    ] = "Premium_LRS"
    security_type: Literal["Standard", "TrustedLaunch"] = "Standard"
    zones: Annotated[tuple[Literal["1", "2", "3"], ...], msgspec.Meta(max_length=3)] = ()
    disk_encryption_set: ArmId | None = None
    disk_access: ArmId | None = None
    """Private endpoints only, through this DiskAccess."""
    result: Literal["disk", "snapshot", "image-version"] = "disk"
    """What is left at the end: a snapshot has the disk's name; the disk is deleted then."""
    keep_disk: bool = False
    gallery: AzureGallery | None = None
    """For image-version."""
    entra_upload: bool = False
    """Pages need a token of the principal beside the SAS (dataAccessAuthMode)."""
    cloud: Literal["public", "us-government", "china"] = "public"
    tags: Annotated[
        dict[Plain, Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=40)
    ] = msgspec.field(default_factory=dict)
    management: Url | None = None
    authority: Url | None = None
    credential: Sealed | None = None


class AwsSwap(Layout, frozen=True, kw_only=True):
    """What `instance-swap` launches: a stock Windows AMI of AWS, where, and as what."""

    image: Annotated[str, msgspec.Meta(pattern=r"^ami-[0-9a-f]{8,17}\Z")]
    subnet: Annotated[str, msgspec.Meta(pattern=r"^subnet-[0-9a-f]{8,17}\Z")]
    instance_type: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,20}\.[a-z0-9-]{1,20}\Z")] = (
        "m5.large"
    )
    security_groups: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^sg-[0-9a-f]{8,17}\Z")], ...],
        msgspec.Meta(max_length=16),
    ] = ()


class AwsImage(Layout, frozen=True, kw_only=True):
    """What becomes of a disk in an AWS account. Secret "target.credential": msgpack {access_key_id,
    secret_access_key, session_token?} or {profile} or {instance_role}, each with {role_arn, external_id?} if it
    assumes a role.

    `strategy` auto: Linux `register-image`, Windows `instance-swap` if `swap` is given, else `import-image`.
    `endpoint` is one URL for all services, for private endpoints and simulators.
    """

    region: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}\Z")]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9()\[\] ./'@_-]{2,119}\Z")]
    os_type: Literal["Windows", "Linux"] = "Windows"
    strategy: str = "auto"
    """Narrowed by each kind."""
    boot_mode: Literal["uefi", "uefi-preferred", "legacy-bios"] = "uefi"
    license: Literal["aws", "byol"] = "aws"
    root_device: Annotated[str, msgspec.Meta(pattern=r"^/dev/(?:sda1|xvda)\Z")] = "/dev/sda1"
    volume_type: Literal["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"] = "gp3"
    ena: bool = True
    tpm: bool = False
    imds_v2: bool = True
    encrypted: bool = False
    kms_key: (
        Annotated[str, msgspec.Meta(pattern=r"^arn:[a-z-]{3,16}:kms:[^\s]{1,200}\Z")] | None
    ) = None
    import_role: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+=,.@_-]{1,64}\Z")] = "vmimport"
    swap: AwsSwap | None = None
    tags: Annotated[
        dict[Plain, Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=40)
    ] = msgspec.field(default_factory=dict)
    endpoint: Url | None = None
    credential: Sealed | None = None


class AwsSnapshot(AwsImage, frozen=True, kw_only=True, tag_field="kind", tag="aws-snapshot"):
    """An EBS snapshot by the EBS direct APIs, and an AMI of it."""

    strategy: Literal[
        "auto", "register-image", "import-image", "instance-swap", "snapshot-only"
    ] = "auto"


class AwsS3(AwsImage, frozen=True, kw_only=True, tag_field="kind", tag="aws-s3"):
    """A stream-optimized VMDK in a bucket, which VM Import makes a snapshot of, and an AMI of it.

    `strategy` object-only: the object is the result. The object is PREFIX + name + part of the job's id + .vmdk.
    """

    bucket: Annotated[
        str, msgspec.Meta(pattern=r"^(?!xn--)[a-z0-9](?:[a-z0-9]|[.-](?=[a-z0-9])){1,61}[a-z0-9]\Z")
    ]
    prefix: Annotated[
        str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}/){0,8}\Z")
    ] = "imageport/"
    keep_object: bool = False
    strategy: Literal[
        "auto", "register-image", "import-image", "instance-swap", "snapshot-only", "object-only"
    ] = "auto"


GcpName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z](?:[-a-z0-9]{0,57}[a-z0-9])?\Z")]


class GcpImage(Layout, frozen=True, kw_only=True, tag_field="kind", tag="gcp-image"):
    """A Compute Engine image by a tar.gz in a bucket. Secret "target.credential": msgpack {service_account_key} or
    {appliance_credential} or {instance}.

    `gzip` is how the archive is packed: one member is what every reader takes whole. `endpoint` is one URL for all
    services, for private endpoints and simulators.
    """

    project: Annotated[
        str, msgspec.Meta(pattern=r"^(?:[a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]\Z")
    ]
    bucket: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]\Z")]
    image: GcpName
    os_type: Literal["Windows", "Linux"] = "Windows"
    firmware: Literal["uefi", "bios"] = "uefi"
    gvnic: bool = False
    features: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{1,62}\Z")], ...],
        msgspec.Meta(max_length=32),
    ] = ()
    licenses: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9:/._-]{1,255}\Z")], ...],
        msgspec.Meta(max_length=16),
    ] = ()
    architecture: Literal["X86_64", "ARM64"] = "X86_64"
    family: GcpName | None = None
    storage_location: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{2,32}\Z")] | None = None
    kms_key: (
        Annotated[str, msgspec.Meta(pattern=r"^projects/[^\s]{1,255}/cryptoKeys/[^\s]{1,63}\Z")]
        | None
    ) = None
    labels: Annotated[
        dict[
            Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}\Z")],
            Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,63}\Z")],
        ],
        msgspec.Meta(max_length=50),
    ] = msgspec.field(default_factory=dict)
    gzip: Literal["one-member", "members"] = "one-member"
    upload: Literal["parallel", "resumable"] = "parallel"
    """Parts by the XML API, several at once; or one resumable upload of the JSON API."""
    keep_archive: bool = False
    endpoint: Url | None = None
    credential: Sealed | None = None


TargetRef: TypeAlias = LocalTarget | AzurePageBlob | AzureDisk | AwsSnapshot | AwsS3 | GcpImage


class UploadArgs(Layout, frozen=True, kw_only=True):
    """op `upload`, args_v 1: share -> target. The image's format is probed unless given."""

    source: ShareRef
    path: SharePath
    target: TargetRef
    format: Literal["raw", "vhd", "vhdx", "vmdk", "qcow2", "ova"] | None = None
    if_exists: IfExists = "fail"
    verify: Verify = "full"
    bandwidth: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**40)] | None = None
    """Most bytes a second towards the target; None: no limit of this job's own."""
    timeout_s: Annotated[int, msgspec.Meta(ge=60, le=30 * 24 * 3600)] = 7 * 24 * 3600


class PreflightArgs(UploadArgs, frozen=True, kw_only=True):
    """op `preflight`, args_v 1: what such an upload would do, need and cost; it touches nothing."""


class CancelArgs(Layout, frozen=True, kw_only=True):
    """op `cancel`, args_v 1: end another command; carried out in its acceptance transaction."""

    id: Bytes16
    digest: Digest


class SweepArgs(Layout, frozen=True, kw_only=True):
    """op `sweep`, args_v 1: find what jobs left behind; delete it only with `apply`.

    `target` gives the credential for what is where such a target writes; without it, folders only.
    """

    apply: bool = False
    target: TargetRef | None = None


class DiagnosticsArgs(Layout, frozen=True, kw_only=True):
    """op `diagnostics`, args_v 1: run the appliance's checks and report."""

    checks: Annotated[tuple[IdText, ...], msgspec.Meta(max_length=64)] = ()


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]\Z|^24:00\Z")]


class LimitWindow(Layout, frozen=True, kw_only=True):
    """A time of day with another bandwidth, in the appliance's local time; `begin` after `end` goes over midnight."""

    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        msgspec.Meta(max_length=7),
    ] = ()
    """Days on which it begins; none: every day."""
    begin: TimeOfDay
    end: TimeOfDay
    bandwidth: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**40)] | None = None
    """None: no limit in this window."""


class SetLimitsArgs(Layout, frozen=True, kw_only=True):
    """op `set-limits`, args_v 1: change the bandwidth limit of the appliance, or of one job, now. None lifts it."""

    bandwidth: Annotated[int, msgspec.Meta(ge=64 * 1024, le=2**40)] | None = None
    windows: Annotated[tuple[LimitWindow, ...], msgspec.Meta(max_length=32)] = ()
    job: Bytes16 | None = None
    """The command of a job that runs or will run; None: the appliance."""


OpArgs: TypeAlias = (
    UploadArgs | PreflightArgs | CancelArgs | SweepArgs | DiagnosticsArgs | SetLimitsArgs
)

OPS: dict[tuple[str, int], type[OpArgs]] = {
    ("upload", 1): UploadArgs,
    ("preflight", 1): PreflightArgs,
    ("cancel", 1): CancelArgs,
    ("sweep", 1): SweepArgs,
    ("diagnostics", 1): DiagnosticsArgs,
    ("set-limits", 1): SetLimitsArgs,
}
"""Every op that this release knows, by (op, args_v); announced in hello.caps as `op/args_v`."""

SETTINGS = frozenset({"cancel", "set-limits"})
"""Ops that take effect in their acceptance transaction and hold no slot."""


def parse_args(op: str, args_v: int, args: bytes) -> OpArgs:
    """Decode a command's args.

    Raises:
        BadField: The op is unknown (field `op`), or the args do not fit it.
        FrameError: Not a well-formed map.
    """
    try:
        type_ = OPS[op, args_v]
    except KeyError as err:
        msg = f"op {op}/{args_v} is unknown to this release"
        raise BadField(msg, op=op, args_v=args_v) from err
    return decode(args, type_, limit=MAX_COMMAND)
