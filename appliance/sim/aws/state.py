"""What the AWS simulator remembers besides disk bytes; one JSON file, replaced as a whole after each change.

Block writes do not touch it (`appliance.sim.store` records them).
"""

import secrets

import msgspec

from appliance.sim.objects.records import Object, Upload

FILE_NAME = "aws.json"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

Tags = dict[str, str]


class Identity(msgspec.Struct):
    """Names and secrets of one simulator; made up once, so that clients keep working after a restart."""

    account: str
    region: str
    access_key: str
    secret_key: str
    token_secret: str


class Session(msgspec.Struct):
    """Temporary credentials that STS or the metadata service gave out; good until `expires`."""

    secret_key: str
    token: str
    expires: float
    role: str


class Snapshot(msgspec.Struct):
    """One EBS snapshot; `file` holds its bytes."""

    id: str
    volume_gib: int
    started: float
    file: str
    client_token: str = ""
    asked: str = ""
    description: str = ""
    timeout_min: int = 60
    encrypted: bool = False
    kms_key: str = ""
    tags: Tags = {}
    state: str = "pending"
    touched: float = 0.0
    completed_at: float = 0.0
    licensed: str = ""
    """Billing code that its volume had; EBS direct writes none."""


class Image(msgspec.Struct):
    """One AMI of this account, or a stock one of AWS' own (`owner` amazon)."""

    id: str
    name: str
    owner: str
    created: float
    snapshot: str
    root_device: str
    boot_mode: str = ""
    architecture: str = "x86_64"
    ena: bool = False
    tpm: str = ""
    imds: str = ""
    platform: str = ""
    platform_details: str = "Linux/UNIX"
    usage_operation: str = "RunInstances"
    description: str = ""
    volume_type: str = ""
    tags: Tags = {}
    ready_at: float = 0.0


class Volume(msgspec.Struct):
    """One EBS volume."""

    id: str
    snapshot: str
    zone: str
    gib: int
    encrypted: bool
    created: float
    client_token: str = ""
    licensed: str = ""
    instance: str = ""
    tags: Tags = {}


class Instance(msgspec.Struct):
    """One instance; only its root volume, its billing code and its state."""

    id: str
    image: str
    kind: str
    subnet: str
    zone: str
    root_device: str
    root_volume: str
    boot_mode: str
    billing: str
    launched: float
    platform: str = ""
    client_token: str = ""
    state: str = "running"
    tags: Tags = {}


class Task(msgspec.Struct):
    """Work that takes time: an image import, or a root volume being replaced; ends at `due`."""

    id: str
    kind: str
    due: float
    client_token: str = ""
    tags: Tags = {}
    facts: dict[str, str] = {}
    done: bool = False
    failed: str = ""


class State(msgspec.Struct):
    """Everything in the file; `policy` None allows everything."""

    identity: Identity
    policy: dict[str, object] | None = None
    sessions: dict[str, Session] = {}
    snapshots: dict[str, Snapshot] = {}
    images: dict[str, Image] = {}
    volumes: dict[str, Volume] = {}
    instances: dict[str, Instance] = {}
    tasks: dict[str, Task] = {}
    buckets: dict[str, str] = {}
    uploads: dict[str, Upload] = {}
    objects: dict[str, Object] = {}
    next: int = 1
    encrypted_by_default: bool = False
    next_file: int = 1
    next_id: int = 1


def new_identity(region: str) -> Identity:
    """Make up the names and secrets of a new simulator."""
    return Identity(
        account="123456789012",
        region=region,
        access_key="AKIA" + letters(16),
        secret_key=secrets.token_urlsafe(30)[:40],
        token_secret=secrets.token_hex(32),
    )


def letters(count: int) -> str:
    """Return random letters as access keys have them."""
    return "".join(secrets.choice(ALPHABET) for _ in range(count))
