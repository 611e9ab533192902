"""What the Google Cloud simulator remembers besides bytes; one JSON file, replaced as a whole after each change."""

import secrets

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from appliance.sim.objects.records import Object, Upload

FILE_NAME = "gcp.json"


class Identity(msgspec.Struct):
    """Names and secrets of one simulator; made up once, so that clients keep working after a restart."""

    project: str
    email: str
    private_key: str
    token_secret: str


class Image(msgspec.Struct):
    """One image; its disk is `disk.raw` in the folder `folder`."""

    name: str
    id: int
    created: float
    folder: str
    disk_gib: int
    archive_bytes: int
    source: str
    asked: dict[str, object]
    status: str = "PENDING"
    ready_at: float = 0.0
    labels: dict[str, str] = {}
    generation: int = 1


class Operation(msgspec.Struct):
    """Work of Compute Engine that takes until `due`."""

    name: str
    kind: str
    target: str
    due: float
    error_code: str = ""
    error: str = ""


class State(msgspec.Struct):
    """Everything in the file; `granted` None grants everything."""

    identity: Identity
    granted: list[str] | None = None
    buckets: dict[str, str] = {}
    uploads: dict[str, Upload] = {}
    objects: dict[str, Object] = {}
    sessions: dict[str, Upload] = {}
    """Resumable uploads; their parts are what is persisted, one after the other."""
    images: dict[str, Image] = {}
    operations: dict[str, Operation] = {}
    voided_before: float = 0.0
    next: int = 1


def new_identity(project: str) -> Identity:
    """Make up the names and keys of a new simulator."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    email = f"imageport@{project}.iam.gserviceaccount.com"
    return Identity(project, email, pem.decode(), secrets.token_hex(32))
